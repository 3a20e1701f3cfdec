//! What the two sides say to each other.
//!
//! A connection (a *link*) begins with [`ClientHello`] and [`ServerHello`], then [`Opening`] and
//! [`Opened`]. After that it is one of two kinds: a *log link*, of which a session has one, carries
//! ops up and acknowledgements down ([`ToServer`], [`ToClient`]); *read links*, of which it may
//! have several, carry numbered [`Request`]s up and [`Response`]s down, in any order.

mod opening;

mod log;

mod reading;

pub use log::{DeliveryHead, EndReason, ToClient, ToServer};
pub use opening::{
    ALPN, BUSY_ALERT, ClientHello, Grant, Opened, Opening, Password, Purpose, Refusal, Secret,
    ServerHello, VERSION,
};
pub use reading::{Answer, Ask, DeliveryState, Page, PageEntry, ReadError, Request, Response};
