package unix

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"golang.org/x/crypto/ssh"
)

// FuzzDecodePolicy gives the reader of cvtsudoers' answer any JSON: what it takes can be walked through, and what encoding/json says is
// no JSON is taken only for the pairs that cvtsudoers leaves bare.
func FuzzDecodePolicy(f *testing.F) {
	for _, s := range []string{
		``, ` `, `null`, `{}`, `[]`, `{"User_Specs":[null]}`, `{"User_Specs":[{"Cmnd_Specs":[null]}]}`, `{"User_Specs":[{"User_List":[{"username":"ann"}],"Host_List":[{"hostname":"ALL"}],"Cmnd_Specs":[{"Commands":[{"command":"ALL"}]}]}]}`,
		`{"User_Aliases":{"A":[{"userid":0},{"username":"x","negated":true}]}}`, `{"User_Specs":[{"User_List":[{"username":["a"]}]}]}`, `{"User_Specs":[{"User_List":[1]}]}`,
		"{\"User_Specs\":[{\"Cmnd_Specs\":[{\"Options\":[\n\"runcwd\": \"/\"\n]}]}]}", `{"Command_Aliases":{"A":[{"command":"/bin/ls","sha224":"x","sha256":"y"}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		policy, err := decodePolicy(raw)
		if err != nil {
			return
		}
		if !json.Valid(raw) && len(bytes.TrimSpace(raw)) > 0 && !barePair.Match(raw) {
			t.Fatalf("%q is no JSON and is taken", raw)
		}
		for _, s := range policy.Specs {
			if s.line != -1 {
				t.Fatalf("a rule of %q stands on line %d", raw, s.line)
			}
			for _, c := range s.Commands {
				_, _ = c.option("authenticate")
			}
		}
		_ = describe(policy.Specs)
	})
}

// FuzzParseKeys gives the reader of authorized_keys any bytes. The oracle is x/crypto/ssh: every line that it reads is a key or has
// expired, every other is a gap, and no key is read that stands on no line. What is emitted of it fits the proto.
func FuzzParseKeys(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	for _, s := range []string{
		"", "# comment\n", key, key + " ann@host\n" + key, `command="/bin/ls \"x\"",from="10.0.0.0/8" ` + key, `expiry-time="20200101" ` + key, `expiry-time="29990101" ` + key,
		`expiry-time="x" ` + key, "cert-authority " + key, "ssh-rsa AAAA", "\xff\xfe", "no-pty,command=\"a\x00b\" " + key, strings.Repeat("a", 70_000), key + " \x1b[31m\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m := newMachine("/")
		g := newGraph("host", m)
		g.now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		a := &account{name: "ann"}
		keys := parseKeys(g, a, "/home/ann/.ssh/authorized_keys", content)
		lines, readable := 0, map[string]bool{}
		for line := range bytes.Lines(content) {
			if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
				continue
			}
			lines++
			if k, _, _, _, err := ssh.ParseAuthorizedKey(line); err == nil {
				readable[string(k.Marshal())] = true
			}
		}
		if len(keys) > lines {
			t.Fatalf("%d keys stand on %d lines", len(keys), lines)
		}
		for _, k := range keys {
			if !readable[string(k.key.Marshal())] || k.account != a || !strings.HasPrefix(k.at, "/home/ann/.ssh/authorized_keys:") {
				t.Fatalf("%q: read is %+v", content, k)
			}
		}
		if len(keys) < lines && len(keys) < len(readable) && !bytes.Contains(bytes.ToLower(content), []byte("expiry-time")) {
			t.Fatalf("of %d keys that can be read, %d were", len(readable), len(keys))
		}
		if len(readable) == 0 && lines > 0 && len(g.gaps[ScopeKeys]) == 0 {
			t.Fatalf("%q can't be read, and no gap says so", content)
		}
		g.addKeys(m, keys)
		for _, r := range g.records() {
			if err := protovalidate.Validate(r); err != nil {
				t.Fatalf("%v: %v", r, err)
			}
		}
	})
}
