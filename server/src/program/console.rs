//! The person who gave a command: what is printed for them, and what they are asked.
//!
//! Commands that change accounts talk to people only by this, since they may be at a terminal of this
//! process or at the other end of a socket.

use zeroize::Zeroizing;

use crate::program::exit::Failure;

/// Where a command's output goes, and its questions.
pub trait Console {
    /// Prints a line of output.
    ///
    /// # Errors
    /// If it can't be written.
    fn print(&mut self, line: &str) -> Result<(), Failure>;

    /// Says something beside the output. There may be nobody to hear it.
    fn note(&mut self, line: &str);

    /// Whether there is somebody to answer.
    fn can_be_asked(&self) -> bool;

    /// Asks a question, and returns the answer without the end of its line.
    ///
    /// # Errors
    /// If there is no answer.
    fn ask(&mut self, question: &str) -> Result<String, Failure>;

    /// Asks for a new password.
    ///
    /// # Errors
    /// If none is given, or it can't be used as a password.
    fn new_password(&mut self) -> Result<Zeroizing<Vec<u8>>, Failure>;
}
