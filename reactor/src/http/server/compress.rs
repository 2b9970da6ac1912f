//! Compression of responses, as far as the client and the content are for it.

use crate::http::{RequestHead, Response};

pub(super) fn negotiate(_head: &RequestHead, response: Response) -> Response {
    response
}
