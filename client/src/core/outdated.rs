//! The parts of the kernel's cache that must go when the session is over, since another session may
//! change the tree then.

use xfer_protocol::tree::Kind;
use xfer_protocol::{Ino, Name};

use super::notice::Notice;
use super::pause::Stop;
use super::state::Core;

impl Core {
    /// Notices for everything that the kernel may have cached, except the data of files: a file
    /// that is not open can't be read any more, and one that is open may be read. The same applies
    /// to directories. Attributes come first, since their notices never have to wait for a request
    /// in flight.
    pub(crate) fn outdated(&self) -> Vec<Notice> {
        let nodes = self.handles.kernel.nodes().chain([Ino::ROOT]).map(Notice::Node);
        let absent = self.handles.kernel.absent().filter(|(directory, _)| *directory == Ino::ROOT);
        let names = absent.map(|(_, name)| name).chain(self.open_in_root()).cloned();
        let entries = names.map(|name| Notice::Entry(Ino::ROOT, name));
        let contents = self.handles.kernel.nodes().filter(|ino| {
            let node = self.known_node(*ino);
            node.is_none_or(|node| matches!(node.kind, Kind::Symlink { .. }))
        });
        nodes.chain(entries).chain(contents.map(Notice::Contents)).collect()
    }

    /// Keeps the root's node loaded from now on, so that its attributes are available to the end.
    pub(crate) fn keep_root(&mut self) -> Result<(), Stop> {
        self.node(Ino::ROOT)?;
        self.pin(Ino::ROOT);
        Ok(())
    }

    /// The files that programs have open for writing.
    pub(crate) fn written_files(&self) -> Vec<Ino> {
        self.handles.written().collect()
    }

    /// The names in the root that refer to open nodes. The root's attributes remain available, so a
    /// path through such a name would still work. In any other directory, a path fails for lack of
    /// the directory's attributes.
    fn open_in_root(&self) -> impl Iterator<Item = &Name> {
        let open = self.handles.open_nodes();
        let entries = self.replica.table.known_entries(Ino::ROOT, None);
        entries.filter_map(move |(name, ino)| {
            ino.is_some_and(|ino| open.contains(&ino)).then_some(name)
        })
    }
}
