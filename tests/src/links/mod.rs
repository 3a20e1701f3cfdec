//! What lies between a client and a server: pipes in memory, relays, networks, and strangers.

pub mod clock;
pub mod cable;
pub mod mortal;
pub mod forgetful;
pub mod wayward;
pub mod local_disk;
mod line;
mod gate;
pub mod kinds;
pub mod peers;
pub mod relay;
pub mod network;
pub mod strangers;
