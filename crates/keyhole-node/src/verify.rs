//! Opens the head of a stored object and verifies that its sizes can be relied on.

use std::rc::Rc;

use keyhole_core::{CustomerKey, DataKey};
use keyhole_log::{Disk, Object};

use crate::binding::{self, Binding};
use crate::bodies::bodies;
use crate::egress::Reader;
use crate::failure::Result;
use crate::limits::STRIDE;
use crate::link::Link;
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::object_memory::ObjectMemory;
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::source::PieceSource;

impl<P: Platform> Node<P> {
    /// Opens the head of a stored object and checks how it binds the object's bodies. Afterwards
    /// the size of the object and those of its parts can be relied on.
    pub(crate) async fn open_object(
        &self,
        object: &Object,
        customer_key: Option<&CustomerKey>,
        name: ObjectName<'_>,
        request: &Request<'_>,
        memory: &ObjectMemory<'_>,
    ) -> Result<(ObjectHead, Binding)> {
        let ObjectName { bucket, key } = name;
        let head = self.read_head(&object.head, customer_key, bucket, key)?;
        let binding = binding::check(object, &head, bucket, key)?;
        // A description of an evicted object does not need the remote.
        let is_described = object.is_evicted && request.head.method == "HEAD";
        if binding == Binding::Unbound && !is_described {
            self.check_ends(name, object, head.data_key.as_deref(), request.account.link(), memory).await?;
        }
        Ok((head, binding))
    }

    /// Authenticates the end of each part of an unbound object, and so the sizes of the parts, on
    /// which every range depends. A cache remembers the result.
    ///
    /// # Errors
    /// The errors of reading the parts.
    async fn check_ends(
        &self,
        name: ObjectName<'_>,
        object: &Object,
        data_key: Option<&DataKey>,
        link: &Rc<Link>,
        memory: &ObjectMemory<'_>,
    ) -> Result<()> {
        let Some(data_key) = data_key else { return Ok(()) };
        let manifest = bodies(&object.parts).and_then(|bodies| bodies.manifest());
        if manifest.is_some_and(|manifest| self.checked_ends.contains(&manifest)) {
            return Ok(());
        }
        let _admitted = match memory.is_reserved() {
            true => None,
            false => Some(self.admission.read(STRIDE as u64, STRIDE, link).await?),
        };
        for part in &object.parts {
            let data_key = Box::new(DataKey::new(*data_key.expose()));
            let last = part.size.saturating_sub(1)..part.size;
            let evicted = self.evicted_file(name, object, object.size)?;
            let reader = Reader::of_parts(self, object, std::slice::from_ref(part), Some(data_key), last);
            let mut reader = reader.with_evicted(evicted);
            reader.next(self.log.disk().buffer_with_len(reader.piece_len())).await?;
        }
        manifest.into_iter().for_each(|manifest| self.checked_ends.insert(manifest));
        Ok(())
    }
}
