//! How both programs ask their user: questions on the terminal, which is always restored, and
//! secrets from files.
//!
//! Reading order: [`signals`] (catching signals as events for a while), [`question`] (a question
//! and its answer, shown or hidden), [`first_line()`] (a secret from a file).

pub mod signals;
pub mod question;
mod first_line;

pub use first_line::first_line;
pub use question::{Terminal, Unanswered};
