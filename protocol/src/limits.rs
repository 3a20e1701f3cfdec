//! Every bound of the protocol and of the tree, in one place.
//!
//! Both sides enforce each of these; neither trusts the other to. A bound that concerns only one
//! side (a cache, a queue) is defined on that side.

/// The longest name of an entry, in bytes (Linux `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

/// The longest target of a symbolic link, in bytes (Linux `PATH_MAX` less the closing NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;

/// The largest size of a file, in bytes: what ext4 with 4 KiB blocks can hold, since the default
/// content store keeps one plain file a content. Beyond it a write ends with `EFBIG`.
pub const FILE_BYTES_MAX: u64 = (16 << 40) - BLOCK_BYTES;

/// The unit in which data is allocated and charged, in bytes.
pub const BLOCK_BYTES: u64 = 4096;

/// The unit in which names in directories, and targets of symbolic links, are charged, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// The fixed charge for a directory entry, in bytes; its name is charged on top.
pub const ENTRY_BYTES: u64 = 64;

/// The most separate runs of data in a sparse file's map. Past it, the hole before a new run is
/// charged as data, so the map stays small and no write fails because of it.
pub const EXTENT_RUNS_MAX: usize = 65_536;

/// The most hard links to one node (`EMLINK` beyond), as ext4.
pub const LINKS_MAX: u32 = 65_000;

/// The longest name of an extended attribute, in bytes (Linux `XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;

/// The largest value of an extended attribute, in bytes (Linux `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// The most bytes of names and values in all extended attributes of one node together (`ENOSPC`
/// beyond). The names, each with a closing NUL, must also fit `XATTR_LIST_MAX` (64 KiB).
pub const XATTRS_BYTES_MAX: usize = 128 << 10;

/// The most bytes of a node's extended attributes that a listing includes. Larger ones are left out
/// and fetched when they are needed.
pub const XATTRS_LISTED_BYTES_MAX: u64 = 1 << 10;

/// The longest value of the attribute that says why a file was not sent, in bytes.
pub const STATE_BYTES_MAX: usize = 160;

/// The longest note to something that is sent, in bytes.
pub const NOTE_BYTES_MAX: usize = 1000;

/// The most items (files, directories, links) that one sent directory may hold.
pub const DELIVERY_ITEMS_MAX: usize = 65_536;

/// The longest user name, in bytes.
pub const USER_BYTES_MAX: usize = 64;

/// The longest password, in bytes; a longer one is refused before it is hashed.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// The longest label of a device's key, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;

/// The most keys of devices that an account may have.
pub const KEYS_MAX: usize = 64;

/// The largest message part of a frame before login, in bytes.
pub const OPENING_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// The largest message part of a frame after login, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// The largest raw payload of a frame, in bytes. None is allowed before login.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// The largest question on a read link, in bytes. It has no payload.
pub const REQUEST_BYTES_MAX: usize = 4 << 10;

/// The most data in one write op, in bytes.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// The most data that one read request may ask for, in bytes.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// The most ops in one frame.
pub const FRAME_OPS_MAX: usize = 4096;

/// The approximate encoded size at which a listing's page ends, in bytes.
pub const PAGE_BYTES: usize = 256 << 10;

/// The most ids (inode, content and delivery numbers) granted at once.
pub const IDS_MAX: u64 = 1 << 20;

/// The most ranges of ids with unused numbers that a session may hold.
pub const ID_RANGES_MAX: usize = 16;

/// How long a phase before login may take, in milliseconds.
pub const OPENING_TIMEOUT_MS: u64 = 10_000;

/// How often a client sends something while it waits for nothing, in milliseconds. The server answers
/// and is silent otherwise, so that an idle machine is woken once to send and once to receive.
pub const IDLE_HEARTBEAT_MS: u64 = 60_000;

/// The server gives a link up as dead after this time without a byte from the client, in
/// milliseconds. An idle client sends something every [`IDLE_HEARTBEAT_MS`], and users' machines may
/// stall. If the client's kernel is gone too, TCP notices within
/// [`Silence::LONGEST`](crate::message::Silence::LONGEST) that what the server sends is not
/// acknowledged.
pub const CLIENT_SILENCE_TIMEOUT_MS: u64 = 90_000;

/// A client that lost its link keeps the account's seat for this long, in milliseconds.
pub const LEASE_MS: u64 = 300_000;

/// Once somebody else wants to use the account, a client that lost its link keeps the seat for this
/// long, in milliseconds.
pub const LEASE_ASKED_MS: u64 = 45_000;

/// The longest time that the server lets a client which wants the seat wait for the other one to hand
/// it over, in milliseconds. Then the client has to ask again.
pub const HANDOFF_MS: u64 = 5_000;

/// The most nodes that the server names to a client that comes back after others have changed its
/// tree.
pub const CHANGED_MAX: usize = 10_000;
