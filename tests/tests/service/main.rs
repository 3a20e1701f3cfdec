//! A server as a service: its settings, the service manager that runs it, its log, and those who watch it.

mod settings;
mod systemd;
mod log;
mod metrics;
mod pages;
mod status;
mod admin;
