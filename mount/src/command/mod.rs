//! The command line: what the user asks for, and how they show who they are.

pub mod cli;
mod complaint;
pub mod xfer_line;
pub mod file_lines;
pub mod options;
pub mod sshfs;
pub mod config;
pub mod settings;
pub mod helper;
pub mod mounting;
pub mod password;
pub mod identity;
pub mod terminal;
