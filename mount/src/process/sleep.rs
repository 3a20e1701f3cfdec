//! The sleep of this machine, as logind announces it (org.freedesktop.login1(5)).
//!
//! The kernel can't suspend a machine while a program waits for a FUSE filesystem whose process is
//! frozen already. So logind is asked to wait for a moment (an inhibitor of the kind `delay`), in which
//! the client makes durable what it can and ends all waits. Without a bus there is no harm: the
//! machine then sleeps as it would without this.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;
use xfer_client::drive::Client;
use zbus::zvariant::OwnedFd;
use zbus::{Connection, proxy};

/// The longest time for making changes durable before sleep. logind waits 5 seconds at most, unless
/// it is configured otherwise (`InhibitDelayMaxSec=`).
const DURABLE_MAX: Duration = Duration::from_secs(4);

/// The first pause before a bus that is not there is looked for again; each is twice the one before.
const RETRY: Duration = Duration::from_secs(1);

/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How often a bus is looked for that was never there, in ten minutes. A mount may begin before it, as
/// the machine starts; a machine that has none by then is taken to be without logind.
const TRIES: usize = 15;

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    /// Takes an inhibitor, which lasts until the descriptor is closed.
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    /// The machine is about to sleep, or has woken up.
    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

/// Has a client follow the sleep of this machine, for as long as it is polled.
pub async fn follow(client: Arc<Client>) {
    let (mut tries, mut pause) = (TRIES, RETRY);
    while tries > 0 {
        let mut is_there = false;
        if let Err(error) = follow_bus(&client, &mut is_there).await {
            tracing::debug!(%error, "logind");
        }
        if is_there {
            // Whether the machine woke up is not known then.
            client.wake_up();
            (tries, pause) = (usize::MAX, RETRY);
        }
        tries -= 1;
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Follows the announcements on one connection, until it ends.
async fn follow_bus(client: &Arc<Client>, is_there: &mut bool) -> zbus::Result<()> {
    let bus = Connection::system().await?;
    let manager = ManagerProxy::new(&bus).await?;
    let mut announced = manager.receive_prepare_for_sleep().await?;
    let mut inhibitor = Some(delay(&manager).await?);
    *is_there = true;
    while let Some(signal) = announced.next().await {
        match signal.args()?.start {
            true => {
                client.fall_asleep(DURABLE_MAX).await;
                // Now the machine may sleep.
                inhibitor = None;
            }
            false => {
                client.wake_up();
                inhibitor = Some(delay(&manager).await?);
            }
        }
    }
    drop(inhibitor);
    Ok(())
}

async fn delay(manager: &ManagerProxy<'_>) -> zbus::Result<OwnedFd> {
    manager.inhibit("sleep", "xfer", "Sending changes to the server", "delay").await
}
