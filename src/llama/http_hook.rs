//! The callbacks of a server that was asked for something.
//!
//! # Safety
//!
//! llama.cpp calls them, as `ggml-expert-hook.h` says: from threads of the server, but for what a request has cost.

#![allow(clippy::missing_safety_doc)]

use super::live_models::{Live, models};
use super::{live, requests, steering};
use crate::error::Error;
use crate::live::{Answer, PAGE, Request, parse};
use crate::sync::Busy;
use serde_json::json;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Takes an answer: its status, its type, its bytes.
type Take = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, usize);

static ANSWERS: AtomicBool = AtomicBool::new(false);

/// Whether anything is answered.
pub fn answer_if(answers: bool) {
    ANSWERS.store(answers, Relaxed);
}

#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn http(
    _: *mut c_void,
    method: *const c_char,
    path: *const c_char,
    query: *const c_char,
    body: *const c_char,
    n_body: usize,
    to: *mut c_void,
    take: Option<Take>,
) {
    // SAFETY: llama.cpp passes C strings.
    let [method, path, query] = unsafe { [method, path, query].map(|text| CStr::from_ptr(text)) };
    let [method, path, query] = [method, path, query].map(CStr::to_string_lossy);
    let body = match n_body {
        0 => &[][..],
        // SAFETY: so many bytes, which live during the call.
        n => unsafe { std::slice::from_raw_parts(body.cast::<u8>(), n) },
    };
    let nothing = || Answer::error(404, "File Not Found");
    let request = match ANSWERS.load(Relaxed) {
        true => parse(&method, &path, &query, body),
        false => None,
    };
    let answer = match request {
        // Nobody has asked for what is said of experts beside the rest.
        _ if path == "/request" => match request {
            Some(Ok(Request::Sequence(seq))) => requests::end(seq),
            _ => return,
        },
        None => Some(nothing()),
        Some(Err(error)) => Some(Answer::error(400, &error.to_string())),
        Some(Ok(request)) => {
            let answer = catch_unwind(AssertUnwindSafe(|| answer(&request)));
            Some(answer.unwrap_or_else(|_| Answer::error(500, "a bug of hotset, see the log")))
        }
    };
    if let (Some(answer), Some(take)) = (answer, take) {
        // SAFETY: passed on from our caller.
        unsafe { give(&answer, to, take) };
    }
}

/// The answer to a request of HTTP.
fn answer(request: &Request) -> Answer {
    // A signal that came while locks of ours are held would wait for them.
    let busy = match request {
        Request::Page => return Answer::page(PAGE),
        Request::Events => return live::events(),
        _ => Busy::begin(),
    };
    let being_loaded = || Answer::error(503, "a model is being loaded");
    let Some(models) = models() else {
        return being_loaded();
    };
    // What reads the experts of a model is made when it is loaded, and would not hear of a change meanwhile.
    let is_made = |model: &Live| model.streamed().is_none() || model.engine().is_some();
    if request.changes() && !models.iter().all(is_made) {
        return being_loaded();
    }
    let changed = match request {
        Request::Stats => return live::stats(&models),
        Request::Heat => return live::heat(&models),
        Request::Plan => {
            // It takes its time.
            drop(busy);
            return live::plan(models);
        }
        Request::Budget(text) => steering::set_budget(&models, text),
        Request::Policy(name) => steering::set_policy(&models, name),
        Request::Profile(wish) => steering::set_profile(&models, wish),
        Request::Reset => {
            live::reset(&models);
            Ok(json!({"reset": true}))
        }
        Request::Page | Request::Events | Request::Sequence(_) => {
            return Answer::error(500, "it is answered elsewhere");
        }
    };
    match changed {
        Ok(value) => Answer::json(&value),
        Err(error @ Error::System { .. }) => Answer::error(500, &error.to_string()),
        Err(error) => Answer::error(400, &error.to_string()),
    }
}

pub unsafe extern "C" fn metrics(_: *mut c_void, to: *mut c_void, take: Option<Take>) {
    if !ANSWERS.load(Relaxed) {
        return;
    }
    let text = catch_unwind(live::metrics).unwrap_or_default();
    if let Some(take) = take {
        let answer = Answer {
            status: 200,
            kind: "text/plain",
            body: text,
        };
        // SAFETY: passed on from our caller.
        unsafe { give(&answer, to, take) };
    }
}

/// # Safety
///
/// `take` must take what it is told to with `to`.
unsafe fn give(answer: &Answer, to: *mut c_void, take: Take) {
    let kind = CString::new(answer.kind).expect("types have no NUL");
    let (status, body) = (c_int::from(answer.status), &answer.body);
    // SAFETY: strings that live during the call.
    unsafe { take(to, status, kind.as_ptr(), body.as_ptr().cast(), body.len()) };
}
