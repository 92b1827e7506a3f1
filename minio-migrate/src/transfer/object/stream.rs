//! Bodies on their way: hashed as they pass, and never taken for whole when they are not.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};
use veza_probe::clock;

use crate::targets::s3::{Failure, LIMIT, causes};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body that is hashed as it passes.
pub struct Hashed {
    inner: SdkBody,
    state: Arc<Mutex<State>>,
    size_bytes: u64,
}

/// What has passed.
struct State {
    hash: Sha256,
    bytes: u64,
}

/// What a body came to.
pub struct Hash {
    state: Arc<Mutex<State>>,
    size_bytes: u64,
}

impl Hash {
    /// SHA-256 of the body, if all of it passed.
    pub fn finished(&self) -> Option<[u8; 32]> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.bytes == self.size_bytes).then(|| state.hash.clone().finalize().into())
    }

    /// What was hashed so far, if all of the body passed.
    pub fn state(&self) -> Option<Sha256> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.bytes == self.size_bytes).then(|| state.hash.clone())
    }
}

impl Hashed {
    /// A body of so many bytes; more or fewer of them are an error.
    pub fn new(inner: SdkBody, size_bytes: u64) -> (Hashed, Hash) {
        Hashed::behind(Sha256::new(), inner, size_bytes)
    }

    /// The same, of which something was hashed before.
    pub fn behind(hash: Sha256, inner: SdkBody, size_bytes: u64) -> (Hashed, Hash) {
        let state = Arc::new(Mutex::new(State { hash, bytes: 0 }));
        let hash = Hash {
            state: Arc::clone(&state),
            size_bytes,
        };
        let body = Hashed {
            inner,
            state,
            size_bytes,
        };
        (body, hash)
    }

    fn pass(&self, bytes: &Bytes) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.hash.update(bytes);
        state.bytes += bytes.len() as u64;
        if state.bytes > self.size_bytes {
            return Err(format!("more than {} bytes came", self.size_bytes).into());
        }
        Ok(())
    }
}

impl Body for Hashed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let passed = frame.data_ref().map_or(Ok(()), |bytes| self.pass(bytes));
                Poll::Ready(Some(passed.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size_bytes)
    }
}

/// All of a body that must have so many bytes.
///
/// # Errors
/// [`Failure`] when it ends early, stands still, or is too long.
pub async fn gathered(mut answer: GetObjectOutput, size_bytes: u64) -> Result<Bytes, Failure> {
    let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or_default());
    loop {
        let chunk = clock::within(LIMIT, answer.body.next()).await;
        let chunk = chunk.map_err(|elapsed| Failure::silent(format!("its bytes: {elapsed}")))?;
        let Some(chunk) = chunk else { break };
        let chunk =
            chunk.map_err(|error| Failure::silent(format!("its bytes: {}", causes(&error))))?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > size_bytes {
            break;
        }
    }
    if bytes.len() as u64 != size_bytes {
        let came = bytes.len();
        return Err(Failure::silent(format!(
            "{came} bytes came instead of {size_bytes}"
        )));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drained(
        text: &'static str,
        size_bytes: u64,
    ) -> (Result<(), String>, Option<[u8; 32]>) {
        let (mut body, hash) = Hashed::new(SdkBody::from(text), size_bytes);
        let mut ended = Ok(());
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            if let Err(error) = frame {
                ended = Err(error.to_string());
                break;
            }
        }
        (ended, hash.finished())
    }

    #[tokio::test]
    async fn only_a_whole_body_has_a_hash() {
        let whole: [u8; 32] = Sha256::digest("abc").into();
        assert_eq!(drained("abc", 3).await, (Ok(()), Some(whole)));
        assert_eq!(drained("abc", 4).await, (Ok(()), None));
        assert!(drained("abc", 2).await.0.is_err());
    }
}
