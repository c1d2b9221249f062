//! Reading of everything in a remote: buckets, and of each the objects, versions and delete markers.

use std::collections::{BTreeMap, VecDeque};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesOrdered;
use keyhole_log::VersionId;

use crate::fields::{EntryPlace, Kind, ObjectFields};
use crate::limits::{DESCRIPTION_MAX, FETCH_AHEAD_LEN_MAX, FETCH_AHEAD_MAX};
use crate::names::{Names, RemoteName, entry_name, parse_name};
use crate::sabotage::{self, Sabotage};
use crate::service::{Download, Head, Listed, Service, ServiceError};

/// The consumer of everything in a remote.
#[allow(async_fn_in_trait)]
pub trait Consumer<S: Service> {
    /// The failure that ends the reading.
    type Error: From<ServiceError>;

    /// Returns whether a bucket is read.
    fn has_bucket(&self, bucket: &str) -> bool;

    /// Returns whether the objects of a key are read. Objects whose name is a digest are read without
    /// this question.
    fn has_key(&self, bucket: &str, key: &str) -> bool;

    /// Takes the description of a bucket, whose objects follow. Returns whether the bucket has versions, or
    /// `None` if its objects are not to be read.
    ///
    /// # Errors
    /// Ends the reading.
    async fn bucket(&mut self, bucket: &str, name: &str, description: &[u8]) -> Result<Option<bool>, Self::Error>;

    /// Takes an object or a delete marker. Those of a key arrive in the order of their numbers.
    ///
    /// # Errors
    /// Ends the reading.
    async fn object(&mut self, object: RemoteObject<'_, S>) -> Result<(), Self::Error>;

    /// Reports an object that no node can have stored like this.
    fn damaged(&mut self, name: &str, why: &str);
}

/// An object of a remote, or a delete marker.
pub struct RemoteObject<'s, S> {
    service: &'s S,
    /// Its name in the remote.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// `Object` or `Marker`.
    pub kind: Kind,
    /// Its description.
    pub description: Vec<u8>,
    /// Its bytes, if they were fetched with the description.
    bytes: Option<Vec<u8>>,
}

impl<S: Service> RemoteObject<'_, S> {
    /// Begins to read the bytes. Returns `None` if the object was deleted meanwhile.
    ///
    /// # Errors
    /// `Refused`, `Unavailable`.
    pub async fn open(&mut self) -> Result<Option<ObjectBytes<S::Download>>, ServiceError> {
        match self.bytes.take() {
            Some(bytes) => Ok(Some(ObjectBytes::Fetched(Some(bytes)))),
            None => Ok(self.service.get(&self.name, None).await?.map(|(_, download)| ObjectBytes::Arriving(download))),
        }
    }
}

/// The bytes of an object of a remote.
pub enum ObjectBytes<D> {
    /// They are in memory, unless they were taken.
    Fetched(Option<Vec<u8>>),
    /// They arrive from the service.
    Arriving(D),
}

impl<D: Download> Download for ObjectBytes<D> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ServiceError> {
        match self {
            ObjectBytes::Fetched(bytes) => Ok(bytes.take()),
            ObjectBytes::Arriving(download) => download.next().await,
        }
    }
}

/// Reads a remote. Returns the number of buckets that were read.
///
/// # Errors
/// Those of the consumer, and failures of the service.
pub async fn read_contents<S: Service, C: Consumer<S>>(
    service: &S,
    names: Names,
    consumer: &mut C,
) -> Result<u64, C::Error> {
    let mut buckets = 0;
    for bucket in service.directories().await? {
        let name = names.bucket(&bucket);
        if parse_name(&name).is_none() || !consumer.has_bucket(&bucket) {
            continue;
        }
        buckets += 1;
        let description = match read_whole(service, &name, DESCRIPTION_MAX).await {
            Ok((_, description)) => description,
            Err(FetchError::Service(error)) => return Err(error.into()),
            Err(FetchError::Damaged(why)) => {
                consumer.damaged(&name, why);
                continue;
            }
        };
        let Some(is_versioned) = consumer.bucket(&bucket, &name, &description).await? else { continue };
        let mut reading = Reading { service, names, bucket: &bucket, ahead: FuturesOrdered::new(), consumer };
        if is_versioned {
            reading.versions().await?;
        } else {
            reading.objects().await?;
        }
        reading.deliver_all().await?;
    }
    Ok(buckets)
}

/// The reason why an object of the remote cannot be used.
#[derive(Debug)]
pub enum FetchError {
    /// It does not exist, or no node can have stored it like this.
    Damaged(&'static str),
    /// The service failed.
    Service(ServiceError),
}

impl From<ServiceError> for FetchError {
    fn from(error: ServiceError) -> Self {
        FetchError::Service(error)
    }
}

/// An object whose metadata, and bytes if it is short, are known.
struct Fetched {
    kind: Kind,
    description: Vec<u8>,
    bytes: Option<Vec<u8>>,
}

/// The listed names with a prefix, page by page.
struct Pages<'s, S> {
    service: &'s S,
    prefix: String,
    listed: VecDeque<Listed>,
    token: Option<String>,
    is_last: bool,
}

impl<'s, S: Service> Pages<'s, S> {
    fn new(service: &'s S, prefix: String) -> Self {
        Pages { service, prefix, listed: VecDeque::new(), token: None, is_last: false }
    }

    async fn next(&mut self) -> Result<Option<Listed>, ServiceError> {
        while self.listed.is_empty() && !self.is_last {
            let page = self.service.list(&self.prefix, self.token.as_deref()).await?;
            self.listed = page.objects.into();
            self.is_last = page.next.is_none();
            self.token = page.next;
        }
        Ok(self.listed.pop_front())
    }
}

type Fetching<'s> = LocalBoxFuture<'s, (Listed, Result<Fetched, FetchError>)>;

/// A bucket that is read.
struct Reading<'s, 'c, S, C> {
    service: &'s S,
    names: Names,
    bucket: &'c str,
    /// Objects that are being fetched, in the order of delivery.
    ahead: FuturesOrdered<Fetching<'s>>,
    consumer: &'c mut C,
}

impl<S: Service, C: Consumer<S>> Reading<'_, '_, S, C> {
    /// Reads a bucket without versioning.
    async fn objects(&mut self) -> Result<(), C::Error> {
        let mut pages = Pages::new(self.service, format!("{}/", self.bucket));
        while let Some(listed) = pages.next().await? {
            let is_wanted = match parse_name(&listed.name) {
                Some(RemoteName::Object { bucket, key }) => self.consumer.has_key(&bucket, &key),
                Some(RemoteName::Long { .. }) => true,
                _ => false,
            };
            if is_wanted {
                self.fetch(listed).await?;
            }
        }
        Ok(())
    }

    /// Reads a bucket with versioning: the versions of a key one after the other, the oldest first.
    async fn versions(&mut self) -> Result<(), C::Error> {
        let bucket = self.bucket;
        let long = self.long_versions().await?;
        // Keys with a version that has an id, or with a marker.
        let mut pages = Pages::new(self.service, format!("{bucket}/.version/"));
        while let Some(listed) = pages.next().await? {
            let Some(RemoteName::Version { key, .. }) = parse_name(&listed.name) else { continue };
            if !self.consumer.has_key(bucket, &key) || long.contains_key(&key) {
                continue;
            }
            let versions = self.versions_of(&key).await?;
            // The names of other keys may lie between those of this one.
            if versions.first().is_some_and(|first| first.name == listed.name) {
                self.fetch_in_order(&key, versions).await?;
            }
        }
        // Keys whose only version is an object without an id.
        let mut pages = Pages::new(self.service, format!("{bucket}/"));
        while let Some(listed) = pages.next().await? {
            let Some(RemoteName::Object { key, .. }) = parse_name(&listed.name) else { continue };
            let is_wanted = self.consumer.has_key(bucket, &key) && !long.contains_key(&key);
            if is_wanted && self.versions_of(&key).await?.is_empty() {
                self.fetch(listed).await?;
            }
        }
        for (key, mut versions) in long {
            if self.consumer.has_key(bucket, &key) {
                versions.extend(self.versions_of(&key).await?);
                self.fetch_in_order(&key, versions).await?;
            }
        }
        Ok(())
    }

    /// Returns the versions whose names are digests, by key.
    async fn long_versions(&self) -> Result<BTreeMap<String, Vec<Listed>>, ServiceError> {
        let mut by_key = BTreeMap::<String, Vec<Listed>>::new();
        let mut pages = Pages::new(self.service, format!("{}/.long/", self.bucket));
        while let Some(listed) = pages.next().await? {
            let fields = self.fields(&listed.name).await?;
            if let Some(key) = fields.and_then(|fields| fields.key) {
                by_key.entry(key).or_default().push(listed);
            }
        }
        Ok(by_key)
    }

    async fn fields(&self, name: &str) -> Result<Option<ObjectFields>, ServiceError> {
        Ok(self.service.head(name).await?.and_then(|head| ObjectFields::decode(&head.fields)))
    }

    /// Returns the objects of a key below `.version`.
    async fn versions_of(&self, key: &str) -> Result<Vec<Listed>, ServiceError> {
        let null = self.names.object(self.bucket, key, Some(VersionId::Null));
        let Some(prefix) = null.strip_suffix("null").filter(|_| !self.names.is_long(&null)) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut pages = Pages::new(self.service, prefix.to_owned());
        while let Some(listed) = pages.next().await? {
            let parsed = parse_name(&listed.name);
            if matches!(&parsed, Some(RemoteName::Version { key: of, .. }) if of == key) {
                found.push(listed);
            }
        }
        Ok(found)
    }

    /// Fetches all versions of a key, and its object without an id, in the order of their numbers.
    async fn fetch_in_order(&mut self, key: &str, mut versions: Vec<Listed>) -> Result<(), C::Error> {
        let name = self.names.object(self.bucket, key, None);
        if !versions.iter().any(|listed| listed.name == name)
            && let Some(head) = self.service.head(&name).await?
        {
            versions.push(Listed { name, len: head.len });
        }
        if versions.len() > 1 && !sabotage::is(Sabotage::ReadInNameOrder) {
            let mut numbered = Vec::new();
            for listed in versions {
                let number = self.fields(&listed.name).await?.map_or(0, |fields| fields.number);
                numbered.push((number, listed));
            }
            numbered.sort_by_key(|(number, _)| *number);
            versions = numbered.into_iter().map(|(_, listed)| listed).collect();
        }
        for listed in versions {
            self.fetch(listed).await?;
        }
        Ok(())
    }

    /// Begins to fetch an object, after the delivery of the oldest one if there are too many.
    async fn fetch(&mut self, listed: Listed) -> Result<(), C::Error> {
        if self.ahead.len() == FETCH_AHEAD_MAX {
            self.deliver().await?;
        }
        let service = self.service;
        self.ahead.push_back(Box::pin(async move {
            let fetched = fetch(service, &listed).await;
            (listed, fetched)
        }));
        Ok(())
    }

    async fn deliver_all(&mut self) -> Result<(), C::Error> {
        while !self.ahead.is_empty() {
            self.deliver().await?;
        }
        Ok(())
    }

    /// Passes the oldest fetched object on.
    async fn deliver(&mut self) -> Result<(), C::Error> {
        let Some((Listed { name, len }, fetched)) = self.ahead.next().await else { return Ok(()) };
        match fetched {
            Ok(Fetched { kind, description, bytes }) => {
                let object = RemoteObject { service: self.service, name, len, kind, description, bytes };
                self.consumer.object(object).await
            }
            Err(FetchError::Service(error)) => Err(error.into()),
            Err(FetchError::Damaged(why)) => {
                self.consumer.damaged(&name, why);
                Ok(())
            }
        }
    }
}

/// Reads all bytes of an object of at most `max` bytes.
///
/// # Errors
/// `Damaged` if the object does not exist or is longer; failures of the service.
pub async fn read_whole<S: Service>(service: &S, name: &str, max: usize) -> Result<(Head, Vec<u8>), FetchError> {
    let Some((head, mut download)) = service.get(name, None).await? else {
        return Err(FetchError::Damaged("it does not exist"));
    };
    let mut bytes = Vec::new();
    while let Some(more) = download.next().await? {
        if bytes.len() + more.len() > max {
            return Err(FetchError::Damaged("it is too long"));
        }
        bytes.extend(more);
    }
    Ok((head, bytes))
}

/// Fetches the description of an object, and its bytes if it is short.
async fn fetch<S: Service>(service: &S, Listed { name, len }: &Listed) -> Result<Fetched, FetchError> {
    let damaged = FetchError::Damaged;
    let (head, bytes) = if *len <= FETCH_AHEAD_LEN_MAX {
        let (head, bytes) = read_whole(service, name, FETCH_AHEAD_LEN_MAX as usize).await?;
        (head, Some(bytes))
    } else {
        (service.head(name).await?.ok_or(damaged("it does not exist"))?, None)
    };
    let fields = ObjectFields::decode(&head.fields).ok_or(damaged("no node has stored it"))?;
    if !matches!(fields.kind, Kind::Object | Kind::Marker) {
        return Err(damaged("it is not an object"));
    }
    let description = match fields.entry {
        Some(EntryPlace::Here(description)) => description,
        Some(EntryPlace::Beside(_)) => read_whole(service, &entry_name(name), DESCRIPTION_MAX).await?.1,
        None => return Err(damaged("it has no description")),
    };
    Ok(Fetched { kind: fields.kind, description, bytes })
}
