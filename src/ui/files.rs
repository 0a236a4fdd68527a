//! The files of the page, which are part of the program.

/// A file with its headers, each with its line end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    pub headers: &'static str,
    pub body: &'static [u8],
}

/// What every file says beside its tag: nothing runs or is loaded that is not of this server, and nobody shows the page within
/// another.
macro_rules! headers {
    ($type:literal) => {
        concat!(
            "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            "Content-Type: ",
            $type,
            "\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
        )
    };
}

macro_rules! file {
    ($name:literal, $type:literal) => {
        File { headers: headers!($type), body: include_bytes!(concat!("files/", $name)) }
    };
}

const FILES: [(&[u8], File); 7] = [
    (b"", file!("index.html", "text/html; charset=utf-8")),
    (b"app.js", file!("app.js", "text/javascript; charset=utf-8")),
    (b"draw.js", file!("draw.js", "text/javascript; charset=utf-8")),
    (b"live.js", file!("live.js", "text/javascript; charset=utf-8")),
    (b"views.js", file!("views.js", "text/javascript; charset=utf-8")),
    (b"style.css", file!("style.css", "text/css; charset=utf-8")),
    (b"icon.svg", file!("icon.svg", "image/svg+xml")),
];

/// The file of that name; the page itself has none.
pub fn file(name: &[u8]) -> Option<&'static File> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, file)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_small_and_of_this_server_alone() {
        let all: usize = FILES.iter().map(|(_, file)| file.body.len()).sum();
        assert!(all < 60_000, "{all} bytes");
        for (name, file) in &FILES {
            let text = str::from_utf8(file.body).expect("UTF-8");
            // A namespace, and the link to this server's own port for HTTPS.
            let text = text.replace("http://www.w3.org/2000/svg", "").replace("https://${location.hostname}:", "");
            for elsewhere in
                ["http://", "https://", "src=\"/", "href=\"/", "url(/", "innerHTML", "style=\"", "eval("]
            {
                assert!(!text.contains(elsewhere), "{}: {elsewhere}", name.escape_ascii());
            }
        }
        assert!(file(b"other").is_none());
    }
}
