//! How both programs talk with their user: questions on the terminal, which is always restored,
//! secrets and settings from files, and words for what is wrong.
//!
//! Reading order: [`signals`] (catching signals as events for a while), [`question`] (a question
//! and its answer, shown or hidden), [`first_line()`] (a secret from a file),
//! [`settings`] (a file of settings), [`plain()`] (errors that the standard library words).

pub mod signals;
pub mod question;
mod first_line;
pub mod settings;
mod wording;

pub use first_line::first_line;
pub use question::{Terminal, Unanswered};
pub use wording::plain;
