package isolation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/dsse"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/netns"
)

func says(v verdict, text string) ask { return func(context.Context) answer { return answer{v, text} } }

// A refusal counts only beside a control that worked, and an attempt that worked always.
func TestOutcomeNeedsARefusalAndAControl(t *testing.T) {
	for name, c := range map[string]struct {
		attempt, control verdict
		want             Outcome
	}{
		"refused, and the door opens":    {refused, opened, Refused},
		"refused, and so is the right":   {refused, refused, Unproven},
		"refused, and nobody is there":   {refused, unclear, Unproven},
		"no answer":                      {unclear, opened, Unproven},
		"it worked":                      {opened, opened, Hole},
		"it worked, and the right isn't": {opened, refused, Hole},
	} {
		a := attempt{ask: says(c.attempt, "a"), control: &control{ask: says(c.control, "c")}}
		if got := a.run(t.Context()).Outcome; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	absentDoor := attempt{ask: says(refused, ""), control: &control{ask: says(absent, "")}, optional: true}
	if got := absentDoor.run(t.Context()); got != nil {
		t.Errorf("a door that isn't there came to %+v", got)
	}
}

// A call that was never made proves no wall: the container ended, or this process may not go there.
func TestOnlyCallsThatWereLostAreRefused(t *testing.T) {
	calls := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	silent, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, c := range map[string]struct {
		dial Dial
		want verdict
	}{
		"it answers":     {FromHere, opened},
		"nobody listens": {func(context.Context, string) error { return calls(syscall.ECONNREFUSED) }, unclear},
		"dropped": {func(context.Context, string) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}, refused},
		"no way there":        {func(context.Context, string) error { return calls(syscall.ENETUNREACH) }, refused},
		"no host there":       {func(context.Context, string) error { return calls(syscall.EHOSTUNREACH) }, refused},
		"the container ended": {func(context.Context, string) error { return netns.In(1<<30, func() error { return nil }) }, unclear},
		"not allowed to go there": {func(context.Context, string) error {
			return fmt.Errorf("enter the network of a process: %w", syscall.EPERM)
		}, unclear},
		"no files left": {func(context.Context, string) error { return calls(syscall.EMFILE) }, unclear},
		"interrupted":   {func(ctx context.Context, _ string) error { return ctx.Err() }, unclear},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if name == "interrupted" {
			cancel()
		}
		if got := dialAll(c.dial, []string{silent.Addr().String()})(ctx); got.verdict != c.want {
			t.Errorf("%s: %v %s, want %v", name, got.verdict, got.text, c.want)
		}
		cancel()
	}
}

// What can call nobody is refused by everybody: that is no wall.
func TestRefusalOfTheNetworkCountsOnlyWhereTheOwnSetAnswers(t *testing.T) {
	up, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	nobody := func(context.Context, string) error { return os.NewSyscallError("connect", syscall.ENETUNREACH) }
	set := func(slug string, dial Dial) *Set {
		return &Set{Slug: slug, Addresses: []string{up.Addr().String()}, Components: []*Component{{Name: "web", Dial: dial}}}
	}
	mute, other := set("acme", nobody), set("globex", FromHere)
	w := &World{Sets: []*Set{mute, other}, Closed: []Closed{{What: "a server", Address: up.Addr().String()}}, Machine: []string{"127.0.0.1"}}
	tried := append(w.networks(mute, other), w.platformNetwork(mute)...)
	const walls = 3
	if len(tried) != walls {
		t.Fatalf("%d attempts are made", len(tried))
	}
	for _, a := range tried {
		if got := a.run(t.Context()); got.Outcome != Unproven {
			t.Errorf("%s: a component whose network leads nowhere is kept out: %s, %s; %s", got.At, got.Outcome, got.Answer, got.ControlAnswer)
		}
	}
}

func report(t *testing.T, outcomes ...Outcome) *Report {
	t.Helper()
	r := newReport(&World{Plane: "dev", Sets: []*Set{{Tenant: id.NewTenant(), Slug: "acme"}, {Tenant: id.NewTenant(), Slug: "globex"}}}, time.Now())
	var results []*Result
	for _, o := range outcomes {
		results = append(results, &Result{Outcome: o, Wall: wallFiles, From: "acme/<script>alert(1)</script>", At: "globex", Attempt: "x", Answer: "y", Control: "z", ControlAnswer: "w"})
	}
	r.finish(results, time.Now())
	return r
}

func TestReportHoldsOnlyWhereEverythingWasRefused(t *testing.T) {
	for _, c := range []struct {
		held bool
		of   []Outcome
	}{{true, []Outcome{Refused, Refused}}, {false, nil}, {false, []Outcome{Refused, Hole}}, {false, []Outcome{Unproven, Refused}}} {
		if r := report(t, c.of...); r.Held() != c.held || strings.HasPrefix(r.Verdict(), "Isolated") != c.held {
			t.Errorf("of %v it holds: %t, %q", c.of, r.Held(), r.Verdict())
		}
	}
}

func TestSignedReportIsVerifiedOfflineAndNoOtherIs(t *testing.T) {
	private, public, err := NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	_, otherPublic, err := NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	want := report(t, Refused, Hole)
	signed, err := want.Sign(t.Context(), private)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(t.Context(), signed, public)
	if err != nil || got.Count(Hole) != 1 || got.Held() || !got.Began.Equal(want.Began) {
		t.Fatalf("read %+v, %v", got, err)
	}
	if _, err := Open(t.Context(), signed, otherPublic); err == nil || !strings.Contains(err.Error(), "exchanged") {
		t.Errorf("another key: %v", err)
	}
	var e dsse.Envelope
	if err := json.Unmarshal(signed, &e); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(e *dsse.Envelope)) []byte {
		changed := e
		f(&changed)
		out, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, text := range map[string][]byte{
		"a hole made a refusal": change(func(e *dsse.Envelope) {
			e.Payload = base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(`"hole"`), []byte(`"refused"`), 1))
		}),
		"another type":    change(func(e *dsse.Envelope) { e.PayloadType = "application/json" }),
		"no signature":    change(func(e *dsse.Envelope) { e.Signatures = nil }),
		"no report":       []byte("hello"),
		"the bare report": payload,
	} {
		if r, err := Open(t.Context(), text, public); err == nil {
			t.Errorf("%s is believed: %s", name, r.Verdict())
		}
	}
	// Another plane's report, signed well.
	prod := *want
	prod.Plane = "prod"
	if signed, err = prod.Sign(t.Context(), private); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), signed, public); err == nil {
		t.Error("the key of dev vouches for a report of prod")
	}
}

func TestPageNeedsNothingElseAndTakesNoTextForMarkup(t *testing.T) {
	html, err := report(t, Refused, Hole).Page("the key")
	if err != nil {
		t.Fatal(err)
	}
	text := string(html)
	for _, want := range []string{"NOT ISOLATED: 1 of 2", "What is wrong", "the key", "&lt;script&gt;"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page doesn't say %q", want)
		}
	}
	for _, never := range []string{"<script", "http://", "https://", "src=", "href=", "url("} {
		if strings.Contains(text, never) {
			t.Errorf("the page holds %q", never)
		}
	}
}

// member is a component of a tenant, with its authority.
func member(t *testing.T, tenant id.Tenant, service string) (*workload.Source, workload.Authority, string) {
	t.Helper()
	root, err := workload.NewRoot(workload.TrustDomain{Plane: "dev", Tenant: tenant}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	intermediate, err := root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "authority.pem")
	if err := intermediate.Save(file); err != nil {
		t.Fatal(err)
	}
	who := workload.Identity{Plane: "dev", Tenant: tenant, Service: service}
	pair, err := intermediate.IssueKeypair(who, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pair.Save(dir); err != nil {
		t.Fatal(err)
	}
	source, err := workload.OpenSource(dir, who)
	if err != nil {
		t.Fatal(err)
	}
	return source, root, file
}

func pool(t *testing.T, roots ...workload.Authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	for _, r := range roots {
		p.AppendCertsFromPEM(r.CertificatePEM())
	}
	return p
}

// A service that believes two roots is found, by the other's certificate; one that believes its own isn't.
func TestServiceThatBelievesTwoRootsIsFound(t *testing.T) {
	acme, globex := id.NewTenant(), id.NewTenant()
	ours, ourRoot, authority := member(t, acme, "audit")
	theirs, theirRoot, _ := member(t, globex, "audit")
	for name, c := range map[string]struct {
		trusts *x509.CertPool
		want   Outcome
	}{"its own root": {pool(t, theirRoot), Refused}, "both roots": {pool(t, theirRoot, ourRoot), Hole}} {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		pair, err := theirs.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: c.trusts, MinVersion: tls.VersionTLS13}
		server.StartTLS()
		t.Cleanup(server.Close)
		at := &Set{Tenant: globex, Slug: "globex", Roots: pool(t, theirRoot), Components: []*Component{{Name: "audit", Address: server.Listener.Addr().String(), Source: theirs}}}
		from := &Set{Tenant: acme, Slug: "acme", Roots: pool(t, ourRoot), Components: []*Component{{Name: "audit", Address: server.Listener.Addr().String(), Source: ours, Authority: authority}}}
		w := &World{Plane: "dev", Sets: []*Set{from, at}}
		seen := map[string]Outcome{}
		for _, a := range w.certificates(from, at) {
			r := a.run(t.Context())
			seen[r.Attempt] = r.Outcome
			if r.Outcome == Unproven && !strings.Contains(r.Attempt, "misled") {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if seen["present its own certificate"] != c.want {
			t.Errorf("a server that trusts %s: %v", name, seen)
		}
	}
}

func TestFilesAreTriedAsTheComponentsOwnUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("that files are tried as a component's own user is not tested: only root can take on another")
	}
	dir := t.TempDir()
	// The user under test walks through both; testing has made the upper one for this test alone, and closed it.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err != nil || info.Mode().Perm()&0o001 == 0 {
			t.Skipf("that files are tried as a component's own user is not tested: %s is closed to others", up)
		}
	}
	const uid, gid = 54321, 54322
	write := func(name string, mode fs.FileMode, owner, group int) File {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, owner, group), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return File{Path: path, What: name}
	}
	closed, own, shared, open := write("root's", 0o600, 0, 0), write("own", 0o400, uid, gid), write("group's", 0o640, 0, gid), write("everybody's", 0o644, 0, 0)
	c := &Component{Name: "x", User: &User{UID: uid, GID: gid, Groups: []int{gid}}}
	if got := tryFiles(c, []File{closed})(t.Context()); got.verdict != refused || !strings.Contains(got.text, "uid 54321") {
		t.Errorf("root's file: %+v", got)
	}
	for _, f := range []File{own, shared, open} {
		if got := tryFiles(c, []File{closed, f})(t.Context()); got.verdict != opened || !strings.Contains(got.text, f.What) || strings.Contains(got.text, closed.What) {
			t.Errorf("%s: %+v", f.What, got)
		}
	}
	// The thread that took the user on is gone: this one still is root.
	if f, err := os.Open(closed.Path); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
}
