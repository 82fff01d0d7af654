//! The metadata of GGUF files, read and written by llama.cpp's own functions.

use super::sys;
use crate::error::{Error, Result};
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Mutex;

/// The type of a tensor's numbers: a `GGML_TYPE_` constant of [`sys`].
pub type Type = sys::ggml_type;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its numbers.
    pub ty: Type,
    /// Numbers in each dimension, the length of a row first.
    pub shape: [i64; 4],
    /// Where it begins, counted from [`Gguf::data_offset`].
    pub offset: u64,
    /// Its size.
    pub n_bytes: u64,
}

/// What a GGUF file says before its tensors' bytes.
pub struct Gguf {
    context: NonNull<sys::gguf_context>,
}

impl Drop for Gguf {
    fn drop(&mut self) {
        // SAFETY: made by llama.cpp, and freed only here.
        unsafe { sys::gguf_free(self.context.as_ptr()) }
    }
}

impl Gguf {
    /// Reads a file's metadata. Fails if the file is damaged or ends before its last tensor.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |why: String| Error::file(path, why);
        let file = File::open(path).map_err(|e| bad(e.to_string()))?;
        let meta = file.metadata().map_err(|e| bad(e.to_string()))?;
        if !meta.is_file() {
            return Err(bad("not a regular file".to_string()));
        }
        let name = CString::new(path.as_os_str().as_bytes()).expect("it was opened");
        let (context, log) = logged(|| {
            let params = sys::gguf_init_params {
                no_alloc: true,
                ctx: std::ptr::null_mut(),
            };
            // SAFETY: a C string that lives during the call.
            unsafe { sys::gguf_init_from_file(name.as_ptr(), params) }
        });
        let Some(context) = NonNull::new(context) else {
            return Err(bad(format!("not a valid GGUF file: {log}")));
        };
        let gguf = Self { context };
        for tensor in gguf.tensors() {
            let end = gguf.data_offset() + tensor.offset + tensor.n_bytes;
            if end > meta.len() {
                let (name, len) = (tensor.name, meta.len());
                return Err(bad(format!(
                    "cut off: tensor '{name}' ends at {end} of {len} bytes"
                )));
            }
        }
        Ok(gguf)
    }

    /// No metadata and no tensors.
    pub fn empty() -> Self {
        // SAFETY: takes nothing.
        let context = unsafe { sys::gguf_init_empty() };
        Self {
            context: NonNull::new(context).expect("made by operator new"),
        }
    }

    /// Where in the file the tensors' bytes begin.
    pub fn data_offset(&self) -> u64 {
        // SAFETY: the context lives.
        unsafe { sys::gguf_get_data_offset(self.context.as_ptr()) as u64 }
    }

    /// What tensors begin at multiples of.
    pub fn alignment(&self) -> u64 {
        // SAFETY: the context lives.
        unsafe { sys::gguf_get_alignment(self.context.as_ptr()) as u64 }
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> Vec<Tensor> {
        let context = self.context.as_ptr();
        // SAFETY: the context lives.
        let n = unsafe { sys::gguf_get_n_tensors(context) };
        let tensor = |i| {
            // SAFETY: `i` is below the number of tensors, the name is a C string of the context, and
            // a tensor has four dimensions.
            unsafe {
                let name = CStr::from_ptr(sys::gguf_get_tensor_name(context, i));
                Tensor {
                    name: name.to_string_lossy().into_owned(),
                    ty: sys::gguf_get_tensor_type(context, i),
                    shape: *sys::gguf_get_tensor_ne(context, i).cast::<[i64; 4]>(),
                    offset: sys::gguf_get_tensor_offset(context, i) as u64,
                    n_bytes: sys::gguf_get_tensor_size(context, i) as u64,
                }
            }
        };
        (0..n).map(tensor).collect()
    }

    /// The value of `key`, if it is there.
    pub fn value(&self, key: &str) -> Option<Value> {
        let context = self.context.as_ptr();
        let key = CString::new(key).ok()?;
        // SAFETY: the context lives and the key is a C string.
        let at = unsafe { sys::gguf_find_key(context, key.as_ptr()) };
        if at < 0 {
            return None;
        }
        // SAFETY: the key exists, and each getter is called for its own type.
        Some(unsafe {
            match sys::gguf_get_kv_type(context, at) {
                sys::GGUF_TYPE_UINT16 => Value::U16(sys::gguf_get_val_u16(context, at)),
                sys::GGUF_TYPE_UINT32 => Value::U32(sys::gguf_get_val_u32(context, at)),
                sys::GGUF_TYPE_STRING => {
                    let text = CStr::from_ptr(sys::gguf_get_val_str(context, at));
                    Value::Str(text.to_string_lossy().into_owned())
                }
                _ => Value::Other,
            }
        })
    }

    /// Sets `key` to a number.
    pub fn set_u32(&mut self, key: &str, value: u32) {
        let key = text(key);
        // SAFETY: the context lives and the key is a C string, which is copied.
        unsafe { sys::gguf_set_val_u32(self.context.as_ptr(), key.as_ptr(), value) }
    }

    /// Sets `key` to a text.
    pub fn set_str(&mut self, key: &str, value: &str) {
        let (key, value) = (text(key), text(value));
        // SAFETY: the context lives and both are C strings, which are copied.
        unsafe { sys::gguf_set_val_str(self.context.as_ptr(), key.as_ptr(), value.as_ptr()) }
    }

    /// Sets all values of `other`, except its alignment: llama.cpp writes a context of its own
    /// making with the default alignment, whatever this key says.
    pub fn set_all(&mut self, other: &Self) {
        let key = text("general.alignment");
        // SAFETY: both contexts live, and they are two because one is borrowed exclusively.
        unsafe {
            sys::gguf_set_kv(self.context.as_ptr(), other.context.as_ptr());
            sys::gguf_remove_key(self.context.as_ptr(), key.as_ptr());
        }
    }

    /// Adds a tensor after the others. Its name must be new and shorter than 64 bytes, its rows whole
    /// blocks of its type, and its size representable.
    pub fn add_tensor(&mut self, name: &str, ty: Type, shape: [i64; 4]) {
        let mut tensor = sys::ggml_tensor {
            type_: ty,
            ne: shape,
            ..Default::default()
        };
        assert!(name.len() < tensor.name.len(), "{name}");
        for (to, from) in tensor.name.iter_mut().zip(name.bytes()) {
            *to = from as c_char;
        }
        // SAFETY: the type came from a file that llama.cpp has read, and the tensor is copied.
        unsafe {
            tensor.nb[0] = sys::ggml_type_size(ty);
            tensor.nb[1] = sys::ggml_row_size(ty, shape[0]);
            tensor.nb[2] = tensor.nb[1] * shape[1] as usize;
            tensor.nb[3] = tensor.nb[2] * shape[2] as usize;
            sys::gguf_add_tensor(self.context.as_ptr(), &tensor);
        }
    }

    /// The file up to its tensors' bytes, padded to the alignment.
    pub fn to_bytes(&self) -> Vec<u8> {
        // SAFETY: the second call writes as many bytes as the first one says.
        unsafe {
            let mut bytes = vec![0u8; sys::gguf_get_meta_size(self.context.as_ptr())];
            sys::gguf_get_meta_data(self.context.as_ptr(), bytes.as_mut_ptr().cast());
            bytes
        }
    }
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number.
    U16(u16),
    /// A number.
    U32(u32),
    /// A text.
    Str(String),
    /// Anything else.
    Other,
}

/// What llama.cpp calls a type: `q8_0`.
pub fn type_name(ty: Type) -> String {
    // SAFETY: a static C string, or NULL for a number that is no type.
    let name = unsafe {
        let name = sys::ggml_type_name(ty);
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    name.map_or_else(|| ty.to_string(), |n| n.to_string_lossy().into_owned())
}

/// Calls `read`, and returns with its result the first line that ggml logged meanwhile.
fn logged<T>(read: impl FnOnce() -> T) -> (T, String) {
    static LINE: Mutex<String> = Mutex::new(String::new());
    unsafe extern "C" fn keep(_: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
        // SAFETY: ggml logs C strings.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        let mut line = LINE.lock().expect("nothing panics with it");
        if line.is_empty() {
            // Without the name of ggml's function.
            let message = text.split_once(": ").map_or(&*text, |(_, message)| message);
            message.trim_end().clone_into(&mut line);
        }
    }
    let mut callback = None;
    let mut user_data = std::ptr::null_mut();
    // SAFETY: the callback is a function of this program, and what was there before is put back.
    let result = unsafe {
        sys::ggml_log_get(&mut callback, &mut user_data);
        sys::ggml_log_set(Some(keep), std::ptr::null_mut());
        let result = read();
        sys::ggml_log_set(callback, user_data);
        result
    };
    let line = std::mem::take(&mut *LINE.lock().expect("nothing panics with it"));
    (result, line)
}

/// A C string of a text, which ends at its first NUL if it has one.
fn text(s: &str) -> CString {
    CString::new(s.split('\0').next().unwrap_or_default()).expect("no NUL is left")
}
