//! The command line: what the user asks for, and the password.

pub mod cli;
pub mod options;
pub mod config;
pub mod helper;
pub mod password;
pub mod terminal;
