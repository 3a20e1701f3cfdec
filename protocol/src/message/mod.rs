//! What the two sides say to each other.
//!
//! A connection (a *link*) begins with [`ClientHello`] and [`ServerHello`], then [`Opening`] and
//! [`Opened`]. It then becomes one of two kinds. A *log link* carries ops up and acknowledgements
//! down ([`ToServer`], [`ToClient`]); a session has one. A *read link* carries numbered
//! [`Request`]s up and [`Response`]s down, in any order; a session may have several.

mod terms;
mod account;
mod opening;
mod log;
mod reading;

pub use account::{Credential, DeviceKey, Done, InviteCode, KeysThen, Task};
pub use log::{DeliveryHead, EndReason, ToClient, ToServer};
pub use opening::{
    ALPN, BINDING_LABEL, BUSY_ALERT, Binding, Changed, ClientHello, Grant, Opened, Opening,
    Password, PublicKey, Purpose, Refusal, Resume, Return, Secret, ServerHello, Signature, VERSION,
    Wish,
};
pub use reading::{Answer, Ask, DeliveryState, Page, PageEntry, ReadError, Request, Response};
pub use terms::{Silence, Terms};
