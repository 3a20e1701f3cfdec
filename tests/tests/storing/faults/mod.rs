//! Stores that were damaged, or of which a part is gone.

mod damage;
mod check;
mod store_gone;
