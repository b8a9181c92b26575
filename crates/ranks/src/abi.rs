//! MPI by its standard ABI (MPI 5.0, chapter 20 and appendix A), loaded at run time.
//!
//! `libmpi_abi.so.1` is part of MPICH 5 and of Open MPI 6. Handles and constants are those that the standard
//! fixes, so that one program runs with each of them.

#![allow(unsafe_code, reason = "a C library, loaded at run time")]

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::patience;
use crate::places::{Places, int};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::env;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ops::Range;
use std::process;
use std::ptr::null_mut;

/// The libraries that are tried, in this order, after the one that `OFFRAMP_MPI` names.
const LIBRARIES: [&str; 2] = ["libmpi_abi.so.1", "libmpi_abi.so"];

type Handle = usize;
/// `MPI_COMM_WORLD`
const WORLD: Handle = 0x101;
/// `MPI_FLOAT`
const FLOAT: Handle = 0x210;
/// `MPI_DOUBLE`
const DOUBLE: Handle = 0x214;
/// `MPI_STATUS_IGNORE`
const IGNORE: *mut c_void = null_mut();
/// `MPI_THREAD_SERIALIZED`: any thread calls, one at a time.
const SERIALIZED: c_int = 2048;
/// Bytes of `MPI_MAX_LIBRARY_VERSION_STRING`.
const MAX_VERSION: usize = 8192;
/// Counts are `int`s: values of one broadcast.
const MAX_COUNT: usize = 1 << 28;

macro_rules! functions {
    ($($field:ident = $name:literal: fn($($type:ty),*);)*) => {
        /// The functions that are used.
        struct Functions { $($field: unsafe extern "C" fn($($type),*) -> c_int,)* }

        impl Functions {
            fn load(library: &Library) -> std::result::Result<Self, libloading::Error> {
                // SAFETY: these are the names and types of the standard.
                unsafe { Ok(Self { $($field: *library.get(concat!($name, "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    init = "MPI_Init_thread": fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int);
    finalize = "MPI_Finalize": fn();
    rank = "MPI_Comm_rank": fn(Handle, *mut c_int);
    size = "MPI_Comm_size": fn(Handle, *mut c_int);
    all_to_all = "MPI_Ialltoallv": fn(*const c_void, *const c_int, *const c_int, Handle, *mut c_void, *const c_int, *const c_int, Handle, Handle, *mut Handle);
    all_gather = "MPI_Iallgatherv": fn(*const c_void, c_int, Handle, *mut c_void, *const c_int, *const c_int, Handle, Handle, *mut Handle);
    broadcast = "MPI_Ibcast": fn(*mut c_void, c_int, Handle, c_int, Handle, *mut Handle);
    gather = "MPI_Iallgather": fn(*const c_void, c_int, Handle, *mut c_void, c_int, Handle, Handle, *mut Handle);
    test = "MPI_Test": fn(*mut Handle, *mut c_int, *mut c_void);
    abort = "MPI_Abort": fn(Handle, c_int);
    version = "MPI_Get_library_version": fn(*mut c_char, *mut c_int);
}

/// A process that MPI connects to others. A fault of the network ends all of them: MPI's own error handler
/// does that.
pub(crate) struct Abi {
    functions: Functions,
    rank: usize,
    size: usize,
    own: Vec<f32>,     // what it gives, while all is gathered
    _library: Library, // the functions are in it
}

impl fmt::Debug for Abi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} of {} ({})", self.rank, self.size, self.name())
    }
}

impl Abi {
    /// Loads the library and joins the other processes. `launcher` is what told of them.
    pub(crate) fn start(launcher: &str) -> Result<Self> {
        let named = env::var("OFFRAMP_MPI").ok().filter(|name| !name.is_empty());
        let names = match &named {
            Some(name) => vec![&**name],
            None => LIBRARIES.to_vec(),
        };
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: loading an MPI library runs its constructors, which touch nothing of ours. Its own
            // plugins look for its symbols, so that these are global.
            match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(library) => return Self::of(library, name),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(Error::NoLibrary { launcher: launcher.to_owned(), tried: tried.join("; ") })
    }

    fn of(library: Library, name: &str) -> Result<Self> {
        let lacking = |error: libloading::Error| Error::NotTheAbi {
            library: name.to_owned(),
            reason: error.to_string(),
        };
        let functions = Functions::load(&library).map_err(lacking)?;
        let (mut level, mut rank, mut size) = (0, 0, 0);
        let check = |function, code| if code == 0 { Ok(()) } else { Err(Error::Failed { function, code }) };
        // SAFETY: MPI may be begun without the arguments of the program. The integers outlive the calls.
        unsafe {
            check("MPI_Init_thread", (functions.init)(null_mut(), null_mut(), SERIALIZED, &raw mut level))?;
            if level < SERIALIZED {
                return Err(Error::Threads { library: name.to_owned() });
            }
            check("MPI_Comm_rank", (functions.rank)(WORLD, &raw mut rank))?;
            check("MPI_Comm_size", (functions.size)(WORLD, &raw mut size))?;
        }
        Ok(Self { functions, rank: unsigned(rank), size: unsigned(size), own: Vec::new(), _library: library })
    }

    /// Ends all processes if a call failed; by default MPI has done so itself.
    fn check(&self, code: c_int) {
        if code != 0 {
            self.abort(1);
        }
    }

    /// Begins an exchange, and waits until it is done. Its buffers outlive the call of this function.
    fn exchange(&self, begin: impl FnOnce(&Functions, *mut Handle) -> c_int) {
        let mut request: Handle = 0;
        self.check(begin(&self.functions, &raw mut request));
        patience::wait(|| {
            let mut done = 0;
            // SAFETY: the exchange that was begun above, and a flag.
            self.check(unsafe { (self.functions.test)(&raw mut request, &raw mut done, IGNORE) });
            done != 0
        });
    }
}

/// A number that MPI gives as an `int`.
fn unsigned(number: c_int) -> usize {
    usize::try_from(number).unwrap_or(0)
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: it was begun, and nothing calls it after this.
        unsafe { (self.functions.finalize)() };
    }
}

impl Engine for Abi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_to_all(&mut self, send: &[f32], to: &[Range<usize>], received: &mut [f32]) {
        let own = to[self.rank].len();
        assert!(received.len() >= self.size * own, "room for what comes");
        let packed: Vec<f32>;
        let (send, places) = match Places::of(to, self.size, send.len()) {
            Some(places) => (places.slice(send), places),
            None => {
                packed = to.iter().flat_map(|range| &send[range.clone()]).copied().collect();
                (&packed[..], Places::one_after_another(to))
            }
        };
        let come = Places::one_after_another(&vec![0..own; self.size]);
        // SAFETY: every range was checked, and there is a number for each rank.
        self.exchange(|functions, request| unsafe {
            (functions.all_to_all)(
                send.as_ptr().cast(),
                places.counts.as_ptr(),
                places.at.as_ptr(),
                FLOAT,
                received.as_mut_ptr().cast(),
                come.counts.as_ptr(),
                come.at.as_ptr(),
                FLOAT,
                WORLD,
                request,
            )
        });
    }

    fn all_gather(&mut self, values: &mut [f32], from: &[Range<usize>]) {
        let Some(places) = Places::of(from, self.size, values.len()) else {
            return from.iter().enumerate().for_each(|(root, range)| {
                self.broadcast(root, &mut values[range.clone()]);
            });
        };
        let mut own = std::mem::take(&mut self.own);
        own.clear();
        own.extend_from_slice(&values[from[self.rank].clone()]);
        let values = places.slice_mut(values);
        // SAFETY: every range was checked, and there is a number for each rank. What is given is a copy.
        self.exchange(|functions, request| unsafe {
            (functions.all_gather)(
                own.as_ptr().cast(),
                int(own.len()),
                FLOAT,
                values.as_mut_ptr().cast(),
                places.counts.as_ptr(),
                places.at.as_ptr(),
                FLOAT,
                WORLD,
                request,
            )
        });
        self.own = own;
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) {
        for piece in values.chunks_mut(MAX_COUNT) {
            let (start, len) = (piece.as_mut_ptr(), int(piece.len()));
            // SAFETY: a slice and its length.
            self.exchange(|functions, request| unsafe {
                (functions.broadcast)(start.cast(), len, FLOAT, int(root), WORLD, request)
            });
        }
    }

    fn gather(&mut self, values: &[f64], all: &mut [f64]) {
        assert_eq!(all.len(), values.len() * self.size, "room for all");
        let (here, there, len) = (values.as_ptr(), all.as_mut_ptr(), int(values.len()));
        // SAFETY: slices of these lengths.
        self.exchange(|functions, request| unsafe {
            (functions.gather)(here.cast(), len, DOUBLE, there.cast(), len, DOUBLE, WORLD, request)
        });
    }

    fn abort(&self, code: i32) -> ! {
        // SAFETY: it takes numbers only.
        unsafe { (self.functions.abort)(WORLD, code) };
        process::exit(code)
    }

    fn name(&self) -> String {
        let (mut text, mut length) = (vec![0 as c_char; MAX_VERSION + 1], 0);
        // SAFETY: the buffer is longer than the standard's limit and ends with a zero.
        let text = unsafe {
            (self.functions.version)(text.as_mut_ptr(), &raw mut length);
            CStr::from_ptr(text.as_ptr())
        };
        let line = text.to_string_lossy().lines().next().unwrap_or_default().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
