//! How both programs ask their user: questions on the terminal, which leave it as it was however
//! they end, and secrets from files.
//!
//! Reading order: [`signals`] (signals as events, for a while), [`question`] (a question and its
//! answer, shown or hidden), [`first_line()`] (a secret that is not asked for).

pub mod signals;

pub mod question;

mod first_line;

pub use first_line::first_line;
pub use question::{Terminal, Unanswered};
