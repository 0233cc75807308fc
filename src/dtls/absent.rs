//! What stands for OpenSSL where it is not built in: nothing that can be made.

use std::sync::Arc;

use super::hello::ClientHello;
use super::wire::{State, Wire};
use crate::config::TlsFiles;
use crate::stream::TlsError;

/// What sessions are made from.
pub enum Context {}

/// A session.
pub enum Session {}

/// A certificate chain and its key.
#[derive(Clone)]
pub enum Certificate {}

impl Context {
    /// Nobody has a certificate to call this with.
    pub fn new(_: Vec<(Option<Certificate>, Vec<String>)>) -> Option<Arc<Self>> {
        None
    }
}

impl Certificate {
    /// No configuration has a listener that this is needed for.
    ///
    /// # Errors
    /// None.
    pub fn load(_: &TlsFiles) -> Result<Option<Self>, TlsError> {
        Ok(None)
    }
}

impl Session {
    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn connect(_: Option<&str>, _: Option<&str>) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Nobody has a session to call this with.
    pub fn protocol(&self) -> Option<&[u8]> {
        match *self {}
    }

    /// Nobody has a session to call this with.
    pub fn peer_chain(&self) -> Vec<Vec<u8>> {
        match *self {}
    }

    /// Nobody has a context to call this with.
    pub fn begin(context: &Context, _: &ClientHello<'_>, _: &[u8], _: &mut Wire) -> Option<(Self, State)> {
        match *context {}
    }

    /// Nobody has a session to call this with.
    pub fn shake_hands(&mut self, _: &[u8], _: &mut Wire) -> State {
        match *self {}
    }

    /// Nobody has a session to call this with.
    pub fn receive(&mut self, _: &[u8], _: &mut Wire) -> State {
        match *self {}
    }

    /// Nobody has a session to call this with.
    pub fn send(&mut self, _: &[u8], _: &mut Wire) -> bool {
        match *self {}
    }

    /// Nobody has a session to call this with.
    pub fn close(&mut self, _: &mut Wire) {
        match *self {}
    }
}
