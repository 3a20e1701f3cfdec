//! Sending between two trees that share a storage: complete, by sharing contents, and with no later
//! change of one side visible to the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use xfer_protocol::limits::{BLOCK_BYTES, DELIVERY_ITEMS_MAX, NOTE_BYTES_MAX, STATE_BYTES_MAX};
use xfer_protocol::tree::{
    ARRIVED_NOTE_XATTR, Action, FallocateMode, Item, ItemKind, Kind, Loaded, NOTE_XATTR, PlanError,
    Quota, RenameMode, Rows, STATE_XATTR, Table, XattrMode, Xattrs, is_for_programs, plan,
};
use xfer_protocol::{ContentId, DeliveryId, Errno, Ino, Name, Seq};

use crate::audit::audit;
use crate::contents::Storage;
use crate::steps::{File, OWNER, Step, name, step, steps};
use crate::world::{EMPTY_USAGE, Snapshot, World, data, op};

/// Two trees: the first has a mailbox for the second's user, whose inbox has a place for it.
struct Post {
    alice: World,
    bob: World,
    mailbox: Ino,
    inbox: Ino,
}

impl Post {
    fn new() -> Post {
        let storage = Storage::shared();
        let mut alice = World::with(storage.clone(), Quota::UNLIMITED);
        let mut bob = World::with(storage, Quota::UNLIMITED);
        let (mailbox, inbox) = (Ino(alice.id()), Ino(alice.id()));
        alice.must(Action::Mailbox { user: name("bob"), ino: mailbox, owner: OWNER });
        let parent = Ino::INBOX;
        let (name, mode) = (name("alice"), 0o700);
        bob.must(Action::Mkdir { parent, name, ino: inbox, mode, owner: OWNER });
        Post { alice, bob, mailbox, inbox }
    }

    /// A post whose mailbox has the file `a` with these `bytes`.
    fn with_file(bytes: &[u8]) -> (Post, Ino) {
        let mut post = Post::new();
        let ino = Ino(post.alice.id());
        let (parent, name) = (post.mailbox, name("a"));
        post.alice.must(Action::Create { parent, name, ino, mode: 0o644, owner: OWNER });
        if !bytes.is_empty() {
            post.alice.apply(write(ino, 0, bytes.len() as u32, post.alice.id()), bytes).unwrap();
        }
        (post, ino)
    }

    fn send(&mut self, text: &str) -> Result<DeliveryId, Errno> {
        let delivery = DeliveryId(self.alice.id());
        let (to, from) = (name("bob"), name("alice"));
        let sent = self.alice.apply(Action::Send { to, name: name(text), from, delivery }, &[]);
        sent.map(|_| delivery)
    }

    /// Makes the delivery known to the recipient, as a fetch would.
    fn arrive(&mut self, id: DeliveryId) -> u64 {
        let (to, delivery) = self.bob.storage.borrow().posted[&id].clone();
        assert_eq!(to, name("bob"));
        self.bob.table.fill_delivery(id, Some(delivery.clone()));
        delivery.items.len() as u64
    }

    fn accept(&mut self, id: DeliveryId, text: &str) -> Result<Ino, Errno> {
        let count = self.arrive(id);
        let first = Ino(self.bob.storage.borrow_mut().grant(count));
        let (parent, name) = (self.inbox, name(text));
        let accept = Action::Accept { delivery: id, parent, name, first, owner: OWNER };
        self.bob.apply(accept, &[]).map(|_| first)
    }

    fn audit(&self) -> Result<(), String> {
        audit(&[&self.alice, &self.bob])
    }
}

fn write(ino: Ino, offset: u64, len: u32, fresh: u64) -> Action {
    Action::Write { ino, offset, len, clear_set_id: false, fresh: ContentId(fresh) }
}

/// The snapshot that the recipient must see for this one of the sender's.
fn as_received(sent: &Snapshot) -> Snapshot {
    let travels = |kind: &str| ["file", "directory", "link"].contains(&kind);
    let mut received = sent.clone();
    received.retain(|_, seen| travels(seen.kind));
    for seen in received.values_mut() {
        seen.mode &= 0o777;
        seen.uid = OWNER.uid;
    }
    // Names that are not sent don't count at the recipient's.
    let mut names = BTreeMap::new();
    received.values().for_each(|seen| *names.entry(seen.same_as.clone()).or_insert(0) += 1);
    for seen in received.values_mut().filter(|seen| seen.kind != "directory") {
        seen.nlink = names[&seen.same_as];
    }
    received
}

/// Removes everything in a directory.
fn clear(world: &mut World, directory: Ino) {
    for (name, ino) in world.table.children(directory).unwrap() {
        if ino < Ino(Ino::FIRST_GRANTED) {
            continue;
        }
        if world.node(ino).is_directory() {
            clear(world, ino);
            world.must(Action::Rmdir { parent: directory, name });
        } else {
            world.must(Action::Unlink { parent: directory, name });
        }
        if world.node(ino).nlink == 0 {
            world.must(Action::ForgetOrphan { ino });
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn what_is_sent_arrives_whole_and_neither_side_feels_the_other(
        before in steps(40),
        after_alice in prop::collection::vec(step(), 0..25),
        after_bob in prop::collection::vec(step(), 0..25),
    ) {
        let mut post = Post::new();
        post.alice.run(&before);
        post.alice.run(&[Step::Close(0), Step::Close(1)]);
        let (mailbox, mode) = (post.mailbox, RenameMode::Replace);
        let to_mailbox = |text| Action::Rename {
            from: (Ino::ROOT, name(text)),
            to: (mailbox, name("a")),
            mode,
        };
        // The names that may be sent; a few cases have none.
        let mut names = ["a", "b", "c"].into_iter();
        if !names.any(|text| post.alice.apply(to_mailbox(text), &[]).is_ok()) {
            return Ok(());
        }
        let sent = post.alice.snapshot(post.mailbox);
        let id = post.send("a").unwrap();
        prop_assert_eq!(post.audit(), Ok(()));
        post.accept(id, "a").unwrap();
        prop_assert_eq!(post.audit(), Ok(()));
        let mut received = post.bob.snapshot(post.inbox);
        let origin = received.get_mut("/a").expect("it arrived");
        prop_assert_eq!(origin.xattrs.remove(b"user.xfer.from".as_slice()), Some(b"alice".to_vec()));
        prop_assert!(origin.xattrs.remove(b"user.xfer.sent".as_slice()).is_some());
        prop_assert_eq!(received, as_received(&sent));

        // The recipient moves it out of the inbox, and both go on.
        let (from, to) = ((post.inbox, name("a")), (Ino::ROOT, name("a")));
        post.bob.must(Action::Rename { from, to, mode: RenameMode::Replace });
        let (record, mine) = (post.alice.snapshot(post.mailbox), post.bob.snapshot(Ino::ROOT));
        post.alice.run(&after_alice);
        prop_assert_eq!(post.bob.snapshot(Ino::ROOT), mine);
        let theirs = post.alice.snapshot(Ino::ROOT);
        post.bob.run(&after_bob);
        prop_assert_eq!(post.alice.snapshot(Ino::ROOT), theirs);
        let kept = post.alice.snapshot(post.mailbox);
        let changed = |path: &String| kept[path].bytes != record[path].bytes;
        // Files with names elsewhere are no records, and may have been written through those names.
        let records = kept.keys().filter(|path| record[*path].nlink == 1);
        prop_assert_eq!(records.filter(|path| changed(path)).count(), 0, "a record changed");
        prop_assert_eq!(post.audit(), Ok(()));

        post.alice.run(&[Step::Close(0), Step::Close(1)]);
        post.bob.run(&[Step::Close(0), Step::Close(1)]);
        clear(&mut post.alice, post.mailbox);
        clear(&mut post.alice, Ino::ROOT);
        clear(&mut post.bob, Ino::ROOT);
        prop_assert_eq!(post.audit(), Ok(()));
        prop_assert!(post.alice.storage.borrow().contents.is_empty());
    }
}

#[test]
fn sending_and_accepting_share_the_content() {
    let (mut post, ino) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    let received = post.accept(id, "b").unwrap();
    let (there, here) = (post.alice.node(ino), post.bob.node(received));
    assert_eq!(there.content(), here.content());
    assert!(data(&there).sealed && data(&here).sealed);
    assert_eq!(here.mtime, there.mtime);
    assert_eq!(post.bob.read(received), b"hello");
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn a_write_on_the_recipients_side_leaves_the_record_as_it_was() {
    let (mut post, ino) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    let received = post.accept(id, "a").unwrap();
    post.bob.apply(write(received, 0, 1, post.bob.id()), b"J").unwrap();
    assert_eq!((post.bob.read(received), post.alice.read(ino)), (b"Jello".into(), b"hello".into()));
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn what_was_sent_is_a_record_whatever_names_it_has() {
    let (mut post, ino) = Post::with_file(b"hello");
    post.alice.must(Action::Link { ino, parent: Ino::ROOT, name: name("other") });
    let id = post.send("a").unwrap();
    assert_eq!(post.alice.node(ino).sent, Some(id));
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn a_record_refuses_every_change_of_its_data() {
    let (mut post, ino) = Post::with_file(b"hello");
    post.send("a").unwrap();
    let fresh = ContentId(post.alice.id());
    let truncate = Action::SetAttr {
        ino,
        mode: None,
        uid: None,
        gid: None,
        size: Some(0),
        atime: None,
        mtime: None,
        clear_set_id: false,
        fresh,
    };
    let (from, from_offset, to, to_offset) = (ino, 0, ino, 4096);
    let mode = FallocateMode::PunchHole;
    for change in [
        write(ino, 0, 1, fresh.0),
        truncate,
        Action::Fallocate { ino, offset: 0, len: 1, mode, fresh },
        Action::CopyRange { from, from_offset, to, to_offset, len: 5, fresh },
        Action::Link { ino, parent: Ino::ROOT, name: name("x") },
    ] {
        assert_eq!(post.alice.apply(change.clone(), b"x"), Err(Errno::EPERM), "{change:?}");
    }
    assert_eq!(post.alice.read(ino), b"hello");
}

#[test]
fn a_record_can_be_renamed_in_its_mailbox_and_removed_but_not_moved_out() {
    let (mut post, ino) = Post::with_file(b"hello");
    post.send("a").unwrap();
    let (mailbox, mode) = (post.mailbox, RenameMode::Replace);
    let rename = |to: (Ino, Name)| Action::Rename { from: (mailbox, name("a")), to, mode };
    assert_eq!(post.alice.apply(rename((Ino::ROOT, name("a"))), &[]), Err(Errno::EXDEV));
    post.alice.must(rename((mailbox, name("b"))));
    post.alice.must(Action::Unlink { parent: mailbox, name: name("b") });
    post.alice.must(Action::ForgetOrphan { ino });
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn a_record_can_be_sent_once_more_and_is_that_of_the_last_delivery() {
    let (mut post, ino) = Post::with_file(b"hello");
    let first = post.send("a").unwrap();
    let second = post.send("a").unwrap();
    assert_eq!(post.alice.node(ino).sent, Some(second));
    for (id, place) in [(first, "a"), (second, "b")] {
        let received = post.accept(id, place).unwrap();
        assert_eq!(post.bob.read(received), b"hello");
    }
    assert_eq!(post.send("b"), Err(Errno::ENOENT));
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn a_record_that_is_revised_is_an_ordinary_file_and_what_was_sent_stays_sent() {
    let (mut post, ino) = Post::with_file(b"hello");
    let first = post.send("a").unwrap();
    post.alice.must(Action::Revise { ino });
    assert_eq!(post.alice.apply(Action::Revise { ino }, &[]), Err(Errno::EINVAL));
    let fresh = post.alice.id();
    post.alice.apply(write(ino, 0, 1, fresh), b"J").unwrap();
    let second = post.send("a").unwrap();
    let (old, new) = (post.accept(first, "a").unwrap(), post.accept(second, "b").unwrap());
    assert_eq!((post.bob.read(old), post.bob.read(new)), (b"hello".into(), b"Jello".into()));
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn why_a_file_is_not_sent_is_charged_to_nobody_has_a_bound_and_goes_when_it_is_sent() {
    let (mut post, ino) = Post::with_file(b"hello");
    let usage = post.alice.table.usage();
    let mark = |len: usize| Action::SetXattr {
        ino,
        name: Bytes::from_static(STATE_XATTR),
        value: vec![b'x'; len].into(),
        mode: XattrMode::Either,
    };
    post.alice.must(mark(STATE_BYTES_MAX));
    assert_eq!(post.alice.table.usage(), usage);
    assert_eq!(post.alice.apply(mark(STATE_BYTES_MAX + 1), &[]), Err(Errno::EINVAL));
    post.send("a").unwrap();
    assert_eq!(post.alice.node(ino).xattrs, Xattrs::None);
}

#[test]
fn a_declined_delivery_gives_its_contents_back() {
    let (mut post, ino) = Post::with_file(b"hello");
    let delivery = post.send("a").unwrap();
    post.arrive(delivery);
    post.bob.must(Action::Decline { delivery });
    assert_eq!(post.audit(), Ok(()));
    assert_eq!(post.bob.apply(Action::Decline { delivery }, &[]), Err(Errno::ENOENT));
    post.alice.must(Action::Unlink { parent: post.mailbox, name: name("a") });
    post.alice.must(Action::ForgetOrphan { ino });
    assert!(post.bob.storage.borrow().contents.is_empty());
}

#[test]
fn a_delivery_is_accepted_once_even_when_it_was_unloaded_since() {
    let (mut post, _) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    let (_, delivery) = post.bob.storage.borrow().posted[&id].clone();
    post.accept(id, "a").unwrap();
    post.bob.table.trim(0);
    // The store has not seen the op yet and still reports the delivery as waiting.
    post.bob.table.fill_delivery(id, Some(delivery));
    assert_eq!(post.bob.table.delivery(id), Loaded::Absent);
    post.bob.table.mark_durable(post.bob.seq);
    post.bob.table.trim(0);
    assert_eq!(post.bob.table.delivery(id), Loaded::Unknown);
}

#[test]
fn a_name_that_is_taken_refuses_the_delivery_and_leaves_it_waiting() {
    let (mut post, _) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    let (parent, ino) = (post.inbox, Ino(post.bob.id()));
    post.bob.must(Action::Create { parent, name: name("a"), ino, mode: 0o644, owner: OWNER });
    assert_eq!(post.accept(id, "a"), Err(Errno::EEXIST));
    assert!(post.accept(id, "a (2)").is_ok());
}

#[test]
fn accepting_counts_against_the_recipients_quota() {
    let (mut post, _) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    post.bob.table.set_quota(Quota { bytes: 0, nodes: 100 });
    assert_eq!(post.accept(id, "a"), Err(Errno::EDQUOT));
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn an_arrival_leaves_a_tenth_of_the_quota_free() {
    let (mut post, _) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    // Attributes included, it would fit but for the tenth kept free.
    let bytes = post.bob.table.usage().bytes + 4096 + 200;
    post.bob.table.set_quota(Quota { bytes, nodes: 100 });
    assert_eq!(post.accept(id, "a"), Err(Errno::EDQUOT));
    let nodes = post.bob.table.usage().nodes + 10;
    post.bob.table.set_quota(Quota { bytes: 2 * bytes, nodes });
    assert!(post.accept(id, "a").is_ok());
    assert_eq!(Quota { bytes: 100, nodes: 19 }.for_arrivals(), Quota { bytes: 90, nodes: 18 });
}

#[test]
fn nothing_is_accepted_into_the_outbox() {
    let (mut post, _) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    post.inbox = Ino::OUTBOX;
    assert_eq!(post.accept(id, "a"), Err(Errno::EPERM));
}

#[test]
fn only_attributes_of_users_travel() {
    let (mut post, ino) = Post::with_file(b"hello");
    for text in ["user.kept", "user.xfer.state", "security.capability"] {
        let (name, value, mode) = (text.into(), "1".into(), XattrMode::Either);
        post.alice.must(Action::SetXattr { ino, name, value, mode });
    }
    let id = post.send("a").unwrap();
    let received = post.accept(id, "a").unwrap();
    let xattrs = post.bob.node(received).xattrs.all().unwrap();
    let names: Vec<_> = xattrs.keys().map(|name| &name[..]).collect();
    assert_eq!(names, [&b"user.kept"[..], b"user.xfer.from", b"user.xfer.sent"]);
}

#[test]
fn a_directory_that_is_revised_is_ordinary_with_all_in_it_and_what_was_sent_stays_sent() {
    let mut post = Post::new();
    let [album, inner, file, other] = [(); 4].map(|()| Ino(post.alice.id()));
    let (mailbox, mode, owner) = (post.mailbox, 0o700, OWNER);
    for (parent, text, ino) in [(mailbox, "album", album), (album, "inner", inner)] {
        post.alice.must(Action::Mkdir { parent, name: name(text), ino, mode, owner });
    }
    for (text, ino) in [("file", file), ("other", other)] {
        let (parent, name) = (inner, name(text));
        post.alice.must(Action::Create { parent, name, ino, mode: 0o644, owner });
        post.alice.apply(write(ino, 0, 5, post.alice.id()), b"hello").unwrap();
    }
    let id = post.send("album").unwrap();
    let add =
        Action::Create { parent: inner, name: name("new"), ino: Ino(post.alice.id()), mode, owner };
    assert_eq!(post.alice.apply(add.clone(), &[]), Err(Errno::EPERM));
    // It is one record: no part of it is revised alone.
    for ino in [inner, mailbox, Ino::ROOT] {
        assert_eq!(post.alice.apply(Action::Revise { ino }, &[]), Err(Errno::EINVAL));
    }
    post.alice.must(Action::Revise { ino: album });
    for ino in [album, inner, file, other] {
        assert_eq!(post.alice.node(ino).sent, None);
    }
    assert_eq!(post.alice.apply(Action::Revise { ino: album }, &[]), Err(Errno::EINVAL));
    post.alice.must(add);
    post.alice.apply(write(file, 0, 5, post.alice.id()), b"world").unwrap();
    assert_eq!(post.audit(), Ok(()));
    post.accept(id, "album").unwrap();
    let received = post.bob.snapshot(post.inbox);
    assert_eq!(received["/album/inner/file"].bytes, b"hello");
    assert!(!received.contains_key("/album/inner/new"));
    let again = post.send("album").unwrap();
    post.accept(again, "again").unwrap();
    assert_eq!(post.bob.snapshot(post.inbox)["/again/inner/file"].bytes, b"world");
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn a_note_goes_along_once_and_is_that_of_the_sender_at_the_recipients() {
    let (mut post, ino) = Post::with_file(b"hello");
    let set = |value: &[u8]| Action::SetXattr {
        ino,
        name: Bytes::from_static(NOTE_XATTR),
        value: Bytes::copy_from_slice(value),
        mode: XattrMode::Either,
    };
    let longest = vec![b'x'; NOTE_BYTES_MAX];
    for wrong in [&b""[..], b"\x1b[2J", b"a\0", b"\xff", &[&longest[..], b"x"].concat()] {
        assert_eq!(post.alice.apply(set(wrong), &[]), Err(Errno::EINVAL), "{wrong:?}");
    }
    let note = "für dich\nund morgen".as_bytes();
    for taken in [&longest[..], note] {
        post.alice.must(set(taken));
    }
    let id = post.send("a").unwrap();
    let received = post.accept(id, "a").unwrap();
    let xattrs = post.bob.node(received).xattrs.all().unwrap();
    assert_eq!(xattrs.get(ARRIVED_NOTE_XATTR).map(|note| &note[..]), Some(note));
    assert!(!xattrs.contains_key(NOTE_XATTR));
    // So it does not go along when it is sent on.
    assert!(!is_for_programs(ARRIVED_NOTE_XATTR));
}

#[test]
fn names_of_one_file_in_a_sent_directory_are_names_of_one_file_at_the_recipients() {
    let mut post = Post::new();
    let [album, inner, file, other] = [(); 4].map(|()| Ino(post.alice.id()));
    let (mailbox, mode, owner) = (post.mailbox, 0o700, OWNER);
    let make = |parent, text, ino| Action::Mkdir { parent, name: name(text), ino, mode, owner };
    post.alice.must(make(mailbox, "album", album));
    post.alice.must(make(album, "inner", inner));
    for (text, ino) in [("one", file), ("other", other)] {
        let (parent, name) = (album, name(text));
        post.alice.must(Action::Create { parent, name, ino, mode: 0o644, owner });
        post.alice.apply(write(ino, 0, 5, post.alice.id()), b"hello").unwrap();
    }
    post.alice.must(Action::Link { ino: file, parent: inner, name: name("two") });
    post.alice.must(Action::Link { ino: other, parent: Ino::ROOT, name: name("elsewhere") });
    let id = post.send("album").unwrap();
    let sent = post.bob.storage.borrow().posted[&id].1.clone();
    // Its data counts once.
    let data = |item: &&Item| matches!(item.kind, ItemKind::File { .. });
    assert_eq!((sent.items.len(), sent.items.iter().filter(data).count()), (5, 2));
    assert!(sent.bytes() < 2 * BLOCK_BYTES + 100, "{}", sent.bytes());
    // All its names were sent, so it is a record as a whole; the other one can still be changed elsewhere.
    assert_eq!(post.alice.node(file).sent, Some(id));
    assert_eq!(post.alice.node(other).sent, None);

    let first = post.accept(id, "album").unwrap();
    assert_eq!(post.audit(), Ok(()));
    let received = post.bob.snapshot(post.inbox);
    assert_eq!(received["/album/one"].same_as, received["/album/inner/two"].same_as);
    assert_eq!((received["/album/one"].nlink, received["/album/other"].nlink), (2, 1));
    let one = post.bob.table.children(first).unwrap()[1].1;
    post.bob.apply(write(one, 0, 5, post.bob.id()), b"world").unwrap();
    assert_eq!(post.bob.snapshot(post.inbox)["/album/inner/two"].bytes, b"world");
}

#[test]
fn a_mailbox_takes_files_and_directories_but_no_links_or_devices() {
    let (mut post, ino) = Post::with_file(b"hello");
    let (parent, owner, mode) = (post.mailbox, OWNER, 0o755);
    let (fresh, name) = (Ino(post.alice.id()), name("x"));
    for made in [
        Action::Symlink { parent, name: name.clone(), ino: fresh, target: "a".into(), owner },
        Action::Link { ino, parent, name: name.clone() },
    ] {
        assert_eq!(post.alice.apply(made.clone(), &[]), Err(Errno::EPERM), "{made:?}");
    }
    let unknown =
        Action::Mkdir { parent: Ino::OUTBOX, name: name.clone(), ino: fresh, mode, owner };
    assert_eq!(post.alice.apply(unknown, &[]), Err(Errno::ENOENT));
    post.alice.must(Action::Mkdir { parent, name, ino: fresh, mode, owner });
}

#[test]
fn mailboxes_and_fixtures_can_be_neither_moved_nor_removed() {
    let mut post = Post::new();
    let root = Ino::ROOT;
    for (parent, text) in [(Ino::OUTBOX, "bob"), (root, "inbox")] {
        let remove = Action::Rmdir { parent, name: name(text) };
        assert_eq!(post.alice.apply(remove, &[]), Err(Errno::EPERM), "{text}");
        let (from, to) = ((parent, name(text)), (root, name("x")));
        let moved = Action::Rename { from, to, mode: RenameMode::Replace };
        assert_eq!(post.alice.apply(moved, &[]), Err(Errno::EPERM), "{text}");
    }
    let low = Action::Mailbox { user: name("eve"), ino: Ino::ROOT, owner: OWNER };
    assert_eq!(post.alice.apply(low, &[]), Err(Errno::EINVAL), "a number that is no one's");
}

#[test]
fn a_file_with_names_elsewhere_can_not_be_moved_into_a_mailbox() {
    let mut post = Post::new();
    let (root, mode) = (Ino::ROOT, RenameMode::Replace);
    post.alice.step(&Step::Create(b"a".to_vec(), 0o644)).unwrap().unwrap();
    post.alice.step(&Step::Link(b"a".to_vec(), b"b".to_vec())).unwrap().unwrap();
    let (from, to) = ((root, name("a")), (post.mailbox, name("a")));
    assert_eq!(post.alice.apply(Action::Rename { from, to, mode }, &[]), Err(Errno::EXDEV));
}

#[test]
fn a_delivery_that_no_rules_made_is_refused() {
    let (mut post, _) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    let (_, delivery) = post.bob.storage.borrow().posted[&id].clone();
    let accept = |spoil: &dyn Fn(&mut xfer_protocol::tree::Delivery)| {
        let mut spoiled = (*delivery).clone();
        spoil(&mut spoiled);
        let mut bob = World::with(post.bob.storage.clone(), Quota::UNLIMITED);
        bob.table.fill_delivery(id, Some(spoiled.into()));
        let (parent, name, first) = (Ino::INBOX, name("a"), Ino(u64::MAX));
        bob.apply(Action::Accept { delivery: id, parent, name, first, owner: OWNER }, &[])
    };
    assert_eq!(accept(&|_| {}), Err(Errno::EINVAL), "numbers beyond all numbers");
    assert_eq!(accept(&|delivery| delivery.items.clear()), Err(Errno::EIO));
    for item in [0, 1, 7] {
        let to_itself = |delivery: &mut xfer_protocol::tree::Delivery| {
            delivery.items[0].kind = ItemKind::Link { item };
        };
        assert_eq!(accept(&to_itself), Err(Errno::EIO));
    }
    let with_a_note = |delivery: &mut xfer_protocol::tree::Delivery| {
        let note = (Bytes::from_static(NOTE_XATTR), Bytes::from_static(b"\x1b"));
        delivery.items[0].xattrs = Xattrs::of(Arc::new([note].into()));
    };
    assert_eq!(accept(&with_a_note), Err(Errno::EIO));
    let attribute = || [("trusted.x".into(), "1".into())].into_iter().collect();
    let with_attribute = |delivery: &mut xfer_protocol::tree::Delivery| {
        delivery.items[0].xattrs = Xattrs::of(std::sync::Arc::new(attribute()));
    };
    assert_eq!(accept(&with_attribute), Err(Errno::EIO));
}

#[test]
fn sending_asks_for_the_rows_it_needs() {
    let table = Table::new(EMPTY_USAGE, Quota::UNLIMITED, Seq(0));
    let (to, from, delivery) = (name("bob"), name("alice"), DeliveryId(5000));
    let send = Action::Send { to: to.clone(), name: name("a"), from, delivery };
    let stop = xfer_protocol::tree::plan(&table, &crate::world::op(Seq(1), send)).unwrap_err();
    let need = xfer_protocol::tree::Need::Entry(Ino::OUTBOX, to);
    assert_eq!(stop, xfer_protocol::tree::PlanError::Need(need));
}

#[test]
fn a_change_that_shows_on_the_other_side_is_seen() {
    let (mut post, ino) = Post::with_file(b"hello");
    let id = post.send("a").unwrap();
    let received = post.accept(id, "a").unwrap();
    // A server that forgets that the content is shared writes to it.
    let mut node = (*post.bob.node(received)).clone();
    if let Kind::File(data) = &mut node.kind {
        data.sealed = false;
    }
    let (nodes, usage) = (vec![(received, Some(node.into()))], post.bob.table.usage());
    let changes = xfer_protocol::tree::Changes { nodes, usage, ..Default::default() };
    post.bob.table.apply(&changes, post.bob.seq.next());
    assert!(post.audit().unwrap_err().contains("not sealed"));
    post.bob.apply(write(received, 0, 1, post.bob.id()), b"J").unwrap();
    assert_ne!(post.alice.read(ino), b"hello");
}

#[test]
fn a_directory_is_sent_with_all_that_is_in_it_and_stays_as_it_is() {
    let mut post = Post::new();
    for step in [
        Step::Mkdir(b"a".to_vec(), 0o755),
        Step::Mkdir(b"ab".to_vec(), 0o755),
        Step::Create(b"abc".to_vec(), 0o4755),
        Step::Write(File::At(b"abc".to_vec()), 5000, 100, 7),
        Step::Fifo(b"ac".to_vec(), 0o644),
    ] {
        post.alice.step(&step).unwrap().unwrap();
    }
    let (from, to) = ((Ino::ROOT, name("a")), (post.mailbox, name("a")));
    post.alice.must(Action::Rename { from, to, mode: RenameMode::Replace });
    let id = post.send("a").unwrap();
    let first = post.accept(id, "a").unwrap();
    let received = post.bob.snapshot(post.inbox);
    assert_eq!(received.keys().collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
    assert_eq!(received["/a/b/c"].mode, 0o755, "set-id bits do not travel");
    assert!(post.bob.node(first).is_directory());
    let record = post.alice.entry(post.mailbox, &name("a")).unwrap();
    let (parent, ino) = (record, Ino(post.alice.id()));
    let create = Action::Create { parent, name: name("x"), ino, mode: 0o644, owner: OWNER };
    assert_eq!(post.alice.apply(create, &[]), Err(Errno::EPERM));
    assert_eq!(post.audit(), Ok(()));
}

#[test]
fn a_directory_with_more_than_can_be_sent_is_refused_unread() {
    let mut post = Post::new();
    let ino = Ino(post.alice.id());
    let (parent, a) = (Ino::ROOT, name("a"));
    post.alice.must(Action::Mkdir { parent, name: a.clone(), ino, mode: 0o755, owner: OWNER });
    let mut table = Table::new(EMPTY_USAGE, Quota::UNLIMITED, Seq(0));
    let mut large = (*post.alice.node(ino)).clone();
    let (parent, entries) = (post.mailbox, DELIVERY_ITEMS_MAX as u64);
    large.kind = Kind::Directory { parent, entries, name_bytes: entries };
    table.fill_node(ino, Some(large));
    table.fill_entry(Ino::OUTBOX, name("bob"), Some(post.mailbox));
    table.fill_entry(post.mailbox, a.clone(), Some(ino));
    let (to, from, delivery) = (name("bob"), name("alice"), DeliveryId(post.alice.id()));
    let send = op(Seq(1), Action::Send { to, name: a, from, delivery });
    assert_eq!(plan(&table, &send), Err(PlanError::Refused(Errno::EDQUOT)));
}
