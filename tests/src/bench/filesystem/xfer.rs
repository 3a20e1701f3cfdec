//! xfer, with its default settings.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::backing::LIMIT;
use super::{Filesystem, Mounted, Pids, Sides};
use crate::bench::timed::{Deadline, Stop, run};
use crate::bench::usage::of_family;
use crate::network::{Namespace, Network, SERVER};
use crate::programs::program;
use crate::server::Server;
use crate::{Mount, World, run_within, shell, wait_until};

/// xfer itself.
#[derive(Debug)]
pub struct Xfer;

struct Mounting {
    // Declared first, so that it is dropped while its server still runs.
    mount: Option<Mount>,
    world: World,
    client: Namespace,
    server: Namespace,
    place: PathBuf,
}

impl Filesystem for Xfer {
    fn name(&self) -> &'static str {
        "xfer"
    }

    fn remark(&self) -> &'static str {
        "default settings; durable after `sync DIR` of the mount point; checked by killing both \
         processes then, and reading the store"
    }

    fn sends(&self) -> bool {
        true
    }

    fn counts_messages(&self) -> bool {
        true
    }

    fn counts_requests(&self) -> bool {
        true
    }

    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        let (client, server) = (network.client.clone(), network.server.clone());
        let users = ["alice --quota none", "bob --quota none"];
        let world = server.run(|| {
            World::within(place, &users, |store| Server::start(store, &format!("{SERVER}:33000")))
        });
        let mut import = Command::new(program("xfer-server"));
        import.args(["import", "alice"]).arg(fixture).arg("--store").arg(world.server.store());
        run_within(&mut import, LIMIT).succeeded();
        run_within(Command::new("sync").arg("-f").arg(place), LIMIT).succeeded();
        let mount = Some(client.run(|| world.mount("alice")));
        Box::new(Mounting { mount, world, client, server, place: place.to_owned() })
    }
}

impl Mounting {
    fn mounted(&self) -> &Mount {
        self.mount.as_ref().expect("it is mounted until the store was read")
    }

    /// Exports an account from the store, without the mailboxes that were never used.
    fn export(&self, user: &str) -> PathBuf {
        let to = self.place.join(format!("stored-of-{user}"));
        let mut export = Command::new(program("xfer-server"));
        export.args(["export", user]).arg(&to).arg("--store").arg(self.world.server.store());
        run_within(&mut export, LIMIT).succeeded();
        shell(&to, "rmdir outbox/* outbox inbox 2>/dev/null || true");
        to
    }
}

impl Mounted for Mounting {
    fn root(&self) -> &Path {
        self.mounted().root()
    }

    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop> {
        run(Command::new("sync").arg(self.root()), deadline).map(drop)
    }

    fn usage(&self) -> Sides {
        let [client, server] = [self.mounted().pid(), self.world.server.pid()].map(of_family);
        Sides { client, server }
    }

    fn pids(&self) -> Option<Pids> {
        Some(Pids { client: self.mounted().pid(), server: self.world.server.pid() })
    }

    fn counts(&self) -> Option<Value> {
        let listed = self.world.server.command(&["session", "list", "--json"]).succeeded();
        let mut sessions: Value = serde_json::from_str(&listed.stdout).ok()?;
        Some(sessions[0]["counts"].take())
    }

    fn stored(&mut self) -> PathBuf {
        self.world.server.kill();
        self.mount.take();
        self.export("alice")
    }

    fn received(&mut self, name: &str) -> PathBuf {
        self.server.run(|| self.world.server.restart());
        let mount = self.client.run(|| self.world.mount("bob"));
        let path = mount.path(&format!("inbox/alice/{name}"));
        wait_until("the delivery", LIMIT, || path.exists());
        mount.unmount();
        self.world.server.kill();
        self.export("bob").join("inbox/alice").join(name)
    }
}
