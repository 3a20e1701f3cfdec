//! Notices on the desktop (freedesktop.org's Desktop Notifications Specification).

use std::collections::{BTreeSet, HashMap};

use tokio::runtime::{Builder, Runtime};
use xfer_protocol::shown::shown;
use xfer_protocol::size;
use zbus::zvariant::Value;
use zbus::{Connection, proxy};

use super::arrival::Arrival;
use crate::process::exit::{Exit, Failure};

/// The icon beside a notice (freedesktop.org's Icon Naming Specification).
const ICON: &str = "folder-remote";

/// A notice is shown as long as the service likes.
const AS_USUAL: i32 = -1;

/// With more arrivals at a time, one notice stands for all.
const SINGLY_MAX: usize = 3;

/// The most names in such a notice.
const NAMES_MAX: usize = 5;

#[proxy(
    interface = "org.freedesktop.Notifications",
    default_service = "org.freedesktop.Notifications",
    default_path = "/org/freedesktop/Notifications"
)]
trait Notifications {
    /// What the service can do.
    fn get_capabilities(&self) -> zbus::Result<Vec<String>>;

    /// Shows a notice in the place of another one (0: of none).
    #[allow(clippy::too_many_arguments)]
    fn notify(
        &self,
        application: &str,
        replaces: u32,
        icon: &str,
        summary: &str,
        body: &str,
        actions: &[&str],
        hints: HashMap<&str, Value<'_>>,
        expires: i32,
    ) -> zbus::Result<u32>;
}

/// The desktop of this login.
pub(super) struct Desktop {
    runtime: Runtime,
    service: NotificationsProxy<'static>,
    /// Whether it reads notices as marked-up text.
    takes_markup: bool,
}

impl Desktop {
    /// Finds the service that shows notices.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn find() -> Result<Desktop, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
        let found = runtime.block_on(async {
            let service = NotificationsProxy::new(&Connection::session().await?).await?;
            let capabilities = service.get_capabilities().await?;
            zbus::Result::Ok((service, capabilities))
        });
        let (service, capabilities) = found.map_err(|error| {
            tracing::debug!(%error, "notices");
            let line = "--notify: nothing shows notices in this login, as a desktop does; --exec can tell \
                        of arrivals in another way";
            Failure::new(Exit::Other, line)
        })?;
        let takes_markup = capabilities.iter().any(|capability| capability == "body-markup");
        Ok(Desktop { runtime, service, takes_markup })
    }

    /// Shows notices of arrivals.
    ///
    /// # Errors
    /// If the service does not take them.
    pub(super) fn show(&self, arrivals: &[&Arrival]) -> zbus::Result<()> {
        let notices = match arrivals.len() {
            0..=SINGLY_MAX => arrivals.iter().map(|arrival| of_one(arrival)).collect(),
            _ => vec![of_many(arrivals)],
        };
        for (summary, body) in notices {
            let body = if self.takes_markup { escaped(&body) } else { body };
            let (actions, hints) = (&[][..], HashMap::new());
            let shown =
                self.service.notify("xfer", 0, ICON, &summary, &body, actions, hints, AS_USUAL);
            self.runtime.block_on(shown)?;
        }
        Ok(())
    }
}

/// The summary and the body for an arrival.
fn of_one(arrival: &Arrival) -> (String, String) {
    let from = shown(&arrival.from.to_string_lossy());
    let name = shown(&arrival.name().to_string_lossy());
    let mut body = match arrival.meta.is_directory() {
        true => "a directory".to_owned(),
        false => size::display(arrival.meta.size),
    };
    if let Some(note) = &arrival.note {
        body = format!("{}\n{body}", shown(note));
    }
    (format!("{from} sent you {name}"), body)
}

/// The summary and the body for several.
fn of_many(arrivals: &[&Arrival]) -> (String, String) {
    let text = |name: &std::ffi::OsStr| shown(&name.to_string_lossy());
    let from: BTreeSet<String> = arrivals.iter().map(|arrival| text(&arrival.from)).collect();
    let from: Vec<String> = from.into_iter().take(NAMES_MAX).collect();
    let names = arrivals.iter().map(|arrival| text(&arrival.name()));
    let mut body: Vec<String> = names.take(NAMES_MAX).collect();
    if arrivals.len() > body.len() {
        body.push(format!("and {} more", arrivals.len() - body.len()));
    }
    (format!("{} arrivals from {}", arrivals.len(), from.join(", ")), body.join("\n"))
}

/// A text that says the same where marked-up text is expected.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
