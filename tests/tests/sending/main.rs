//! Sending between users: the outbox, the inbox, and files that are not complete.

mod quiet;
mod states;
mod managers;
mod orders;
mod sent;
mod outbox;
mod outbox_directories;
mod revised_directories;
mod interrupted;
