//! What programs find on a mount: POSIX and Linux, ordinary tools, suites of others.

mod posix_names;
mod posix_attributes;
mod posix_data;
mod copies;
mod big_files;
mod interrupts;
mod everyday;
mod differential;
mod suites;
