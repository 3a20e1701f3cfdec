//! A server as a service: its settings, and the service manager that runs it.

mod settings;
mod systemd;
