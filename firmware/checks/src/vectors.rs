//! Test vectors of the format: copies of some in `keyhole-core`, compared with the originals by a
//! test.

/// A chunked message, in hex. Byte i of the plaintext is `7 * i + 13 * (i >> 8) + 5`.
pub(crate) struct Message {
    pub(crate) input_key: &'static str,
    pub(crate) salt: &'static str,
    pub(crate) context: &'static str,
    pub(crate) plaintext_len: usize,
    /// SHA-256 of the whole message.
    pub(crate) sha256: &'static str,
}

/// A sealed object file of one body.
pub(crate) struct File {
    pub(crate) key: &'static str,
    pub(crate) customer_key: &'static str,
    pub(crate) bytes: &'static [u8],
    /// SHA-256 of the plaintext.
    pub(crate) sha256: &'static str,
}

/// The bucket of all files.
pub(crate) const BUCKET: &str = "edge";

pub(crate) const FILES: [File; 2] = [
    File {
        key: "hello.txt",
        customer_key: "3c20739779e2e66cb13c76d29ce31fd9db54ad6d3242fba78a87bc6c45d60d57",
        bytes: include_bytes!("../vectors/hello.sealed"),
        sha256: "bcae05c4aa094a44ac005f3c64308ad4f21682a6ed22bc8124733e7078539052",
    },
    File {
        key: "empty",
        customer_key: "22c1dc462045fbc48cfd4c21571503a3f4f4bbfc677295959c0481c59b10cea1",
        bytes: include_bytes!("../vectors/empty.sealed"),
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    },
];

/// A file of two parts, which a device must reject with a specific error.
pub(crate) const PARTS: File = File {
    key: "multi-unbound",
    customer_key: "6b0d359c5e81a760297e5de86026fd675d6f1b479cb997cfc6ae657badcf9159",
    bytes: include_bytes!("../vectors/multi-unbound.sealed"),
    sha256: "239f1b3408df473741670a8cefcb8d92c2caf52451945d972dabdde6bc10fe81",
};

pub(crate) const MESSAGES: [Message; 11] = [
    Message {
        input_key: "c193e5f6a77e282cd08f168ada6063bc2f07a7fa12196ca745ba1caccd0d4857",
        salt: "77a9530bf20fc2450c78d2ddc190fb3c32d4e4b97a961dbb",
        context: "52cc6867845effe295a6e16b64b90c8983d4a384434f4c200e54ac657eaccab4384403cc6cdf77a2",
        plaintext_len: 0,
        sha256: "f3e0c73904b785aac7e5b72598afaa756442ae4d2a63774a432d2c19115ce156",
    },
    Message {
        input_key: "ec80c38baa4cbb2f30a1b1e878728fb2ada2e52bd268f1b90820d042ac1fb2f9",
        salt: "6d873c5629b7b3a24b40eadf8455672ff08a6f4ea735ad9d",
        context: "",
        plaintext_len: 1,
        sha256: "b33272c7abec9de8d849b557daaed488ea941787287bc473f471974404502906",
    },
    Message {
        input_key: "67390be6d47f1239180f550764763cf1337c32a83fe4665542c89b4e4505d751",
        salt: "54cf5a36cc5274ff98268d5c61ce9595900b18b768a380b0",
        context: "",
        plaintext_len: 15,
        sha256: "45f5d0d39af242878135e77755e11217532d32b35a1c67202fe54c0865619cd5",
    },
    Message {
        input_key: "f650201ee0553053819981906b51c0173efcb50631ac49870eadc61745f2376e",
        salt: "9cc4fbc993ee811ce4aa1e63e4d26eeea6ea35fb974805c0",
        context: "c66a8c9122",
        plaintext_len: 16,
        sha256: "3772cbb5ac5154211a41f6e8b3fd9fe56b6e8430b23c1a0723deffe16dc6209c",
    },
    Message {
        input_key: "2ff1924529dda9708bdfdcfc25a14359e69639bf7d405c4d3d52a7659da4de9a",
        salt: "67b54e3f08433f63cff59f16ba2ddce93a1e2a27c7acb3e0",
        context: "b1176519b9",
        plaintext_len: 17,
        sha256: "d7bb824a31d2274dfed7a0737af3d2592794aa02ec4a074481e1858f15689554",
    },
    Message {
        input_key: "a1bf32f9d3863772a0debddd5c2b1cb7a200d5077f7c84217254d78c4d08fc0c",
        salt: "993b722b0bc5b1ba62a96ff9236bc7423a6469cc0e601dc1",
        context: "14cd5aae8e1e6327e6a567b28d5e28928b56e98892ebe6da5a7eabf84abc7ea348df7015ca2e080d",
        plaintext_len: 16_383,
        sha256: "271d6dd93cb4ac09d0407f498ede14362bf947959ea21ac9c2429e372bc2477a",
    },
    Message {
        input_key: "19764ad8e749a60f0cb4106396611a0e104407b5ce6cc1e136cd4692ea49cba8",
        salt: "49519d784ed721c7afd451f118d6623e929bf5a212d598ab",
        context: "",
        plaintext_len: 16_384,
        sha256: "4929330c19222e9bab4ba4c055800361d43c51cb2683a79059444e4e48df4290",
    },
    Message {
        input_key: "e39e33c18bd6ca5c9ea128c2154dd592e92382de4cb45bcc2bec040b084c9b7d",
        salt: "60c1f3771a90000b34daeb0b746e0763c9ed3e217b0a65f2",
        context: "e552c28442",
        plaintext_len: 16_385,
        sha256: "c663db70079aad9ce7d7300fee325f8a1188a81ca0ac600688321a33da66a8cd",
    },
    Message {
        input_key: "31d45d8618fc922aec195a5e8b05cc2a8d3eaf95e048a863d5ed9e4ca50ff3f0",
        salt: "0332e016bcb83c07e571ba93acfff0ec5ea62a50338a29f9",
        context: "943ed517e2",
        plaintext_len: 32_767,
        sha256: "fcc8549af01a3d580245ee1fe14c7def842e97c5a0e7dc2c1ca9fe5ff81e1729",
    },
    Message {
        input_key: "c1771093493830f766dc558309f1ed407d473bc060eceb2f9bc73851556dc2f1",
        salt: "8ffbe7bd0a0de223160155e3a8472f6f060b2058b8d69eb0",
        context: "",
        plaintext_len: 32_768,
        sha256: "70560a2c1f270c14c4bf9ef87206996591a120a4daada55c6e1f501d0a3d60e0",
    },
    Message {
        input_key: "fcd9e635a7933c2e2f3868ca8b1b4b0a9065183f7a8bb1e81235bd9de4c6e09f",
        salt: "760912edc16f54226753a16b44ec60d6ffd40285e832986b",
        context: "8b0602f488a3aa77d4eaded371ba4772ae68ba037d36facbbd905aab663ffe95b971010dfbb4d947",
        plaintext_len: 32_769,
        sha256: "668230357cbf62ba72b8600892e3a56017d35481e9232dd48d37490dab5ebc60",
    },
];
