//! The frame of every page.

/// Text that is safe inside an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:0;color:#1b2330;background:#f6f7f9}\
nav{background:#14202e;padding:.6em 1.2em}nav a{color:#cfe3ff;margin-right:1.4em;text-decoration:none}\
nav b{color:#ffc857;margin-right:1.6em}main{padding:1.2em;max-width:1200px;margin:auto}\
form{display:flex;gap:.5em}input{font:14px ui-monospace,monospace;padding:.5em;border:1px solid #b8c2d0;border-radius:4px}\
.query{flex:1}button{padding:.5em 1.2em;border:0;border-radius:4px;background:#1f6feb;color:#fff}\
table{border-collapse:collapse;width:100%;background:#fff;margin-top:1em}td,th{text-align:left;padding:.35em .6em;\
border-bottom:1px solid #e3e7ed;vertical-align:top}.number{white-space:pre;font-family:ui-monospace,monospace}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.error,.firing,.down,.err{color:#c62828}.pending{color:#b26a00}\
.up,.ok{color:#2e7d32}.remark{color:#667}svg{background:#fff;width:100%;height:auto;margin-top:1em}\
.legend{list-style:none;padding:0;margin:.5em 0}.legend i{display:inline-block;width:1em;height:.35em;margin-right:.6em;\
vertical-align:middle}.legend span{color:#667;margin-left:1em;font-size:13px}\
.cards{display:flex;gap:1em;flex-wrap:wrap;margin-top:1.2em}.card{background:#fff;border-radius:6px;padding:.8em 1.4em;\
text-decoration:none;color:inherit;box-shadow:0 1px 3px #0002}.card b{font-size:1.7em;display:block}.card span{color:#667}";

/// A whole page.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{} - Pharos</title><style>{STYLE}</style><nav><b>Pharos</b><a href=/>Query</a>\
         <a href=/alerts>Alerts</a><a href=/rules>Rules</a><a href=/targets>Nodes</a><a href=/metrics>Metrics</a>\
         </nav><main>{body}</main>",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(super::escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }
}
