//! A server as a service: its settings, the service manager that runs it, and those who watch it.

mod settings;
mod systemd;
mod metrics;
mod pages;
mod status;
