package operator_test

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/operator"
)

// authority is a plane's.
type authority struct {
	t            *testing.T
	root, issuer workload.Authority
}

func newAuthority(t *testing.T, plane string) *authority {
	t.Helper()
	root, err := workload.NewRoot(workload.TrustDomain{Plane: plane}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, root, issuer}
}

// bundle is what the plane's machine hands back to a request, as an operator of this name.
func (a *authority) bundle(request []byte, name string) operator.Bundle {
	a.t.Helper()
	return a.lasting(request, name, 30*24*time.Hour)
}

func (a *authority) lasting(request []byte, name string, life time.Duration) operator.Bundle {
	a.t.Helper()
	r, err := operator.ParseRequest(request)
	if err != nil {
		a.t.Fatal(err)
	}
	plane := a.root.TrustDomain().Plane
	chain, err := a.issuer.IssueLeafFor(r.DER, workload.Identity{Plane: plane, Service: workload.OperatorPrefix + name}, time.Now(), life)
	if err != nil {
		a.t.Fatal(err)
	}
	return operator.Bundle{Plane: plane, Name: name, Registry: "127.0.0.1:9443", Service: "registry", Roots: string(a.root.CertificatePEM()), Certificates: string(chain)}
}

func request(t *testing.T, d operator.Dir, name string) []byte {
	t.Helper()
	text, _, err := d.Request(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestKeyIsMadeOnceAndIsNobodyElses(t *testing.T) {
	d := operator.Dir(filepath.Join(t.TempDir(), "below", "key"))
	first, made, err := d.Request("ben")
	if err != nil || !made {
		t.Fatalf("the first time: made %t, %v", made, err)
	}
	key, err := os.ReadFile(filepath.Join(string(d), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	again, made, err := d.Request("ben")
	if err != nil || made || string(again) != string(first) {
		t.Errorf("the second time: made %t, another request %t, %v", made, string(again) != string(first), err)
	}
	// A run that was killed between the two made the key alone.
	if err := os.Remove(filepath.Join(string(d), "request.pem")); err != nil {
		t.Fatal(err)
	}
	anew := request(t, d, "ben")
	one, err := operator.ParseRequest(first)
	if err != nil {
		t.Fatal(err)
	}
	two, err := operator.ParseRequest(anew)
	if err != nil || one.Fingerprint != two.Fingerprint || two.Name != "ben" {
		t.Errorf("the request that was made anew is over another key, or of another: %v, %v", two, err)
	}
	if now, err := os.ReadFile(filepath.Join(string(d), "key.pem")); err != nil || string(now) != string(key) {
		t.Errorf("the key is another (%v)", err)
	}
	if _, _, err := d.Request("carol"); err == nil || !strings.Contains(err.Error(), "directory of operator ben") {
		t.Errorf("another name in the same directory: %v", err)
	}
	for file, want := range map[string]os.FileMode{"": 0o700, "key.pem": 0o600, "request.pem": 0o600} {
		if info, err := os.Stat(filepath.Join(string(d), file)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, want %v (%v)", file, info.Mode().Perm(), want, err)
		}
	}
	left, err := os.ReadDir(string(d))
	if err != nil || len(left) != 2 {
		t.Errorf("beside key and request there is more: %v, %v", left, err)
	}

	open := operator.Dir(t.TempDir())
	if err := os.Chmod(string(open), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open.Request("ben"); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that others can look into: %v", err)
	}
	if err := os.Chmod(filepath.Join(string(d), "key.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Request("ben"); err == nil || !strings.Contains(err.Error(), "others can read the key") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestRequestThatProvesNothingIsRefused(t *testing.T) {
	text := request(t, operator.Dir(filepath.Join(t.TempDir(), "key")), "ben")
	block, _ := pem.Decode(text)
	block.Bytes[len(block.Bytes)-1] ^= 1
	nameless, _, err := workload.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("ben"), "another signature": pem.EncodeToMemory(block), "two": append(text, text...),
		"a certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"no name":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: nameless}),
	} {
		if r, err := operator.ParseRequest(text); err == nil {
			t.Errorf("%s is believed: %v", what, r)
		}
	}
}

func TestCertificateIsTakenOverTheOwnKeyAlone(t *testing.T) {
	a, other := newAuthority(t, "prod"), newAuthority(t, "prod")
	d, mallory := operator.Dir(filepath.Join(t.TempDir(), "key")), operator.Dir(filepath.Join(t.TempDir(), "key"))
	asked := request(t, d, "ben")
	if _, err := operator.Open(string(d)); err == nil || !strings.Contains(err.Error(), "fleet operator accept") {
		t.Errorf("before anything was accepted: %v", err)
	}
	good := a.bundle(asked, "ben")
	with := func(change func(*operator.Bundle)) operator.Bundle {
		b := good
		change(&b)
		return b
	}
	for what, b := range map[string]operator.Bundle{
		"over another key":              a.bundle(request(t, mallory, "ben"), "ben"),
		"of another name":               a.bundle(asked, "carol"),
		"whose name is another's":       with(func(b *operator.Bundle) { b.Certificates = a.bundle(asked, "carol").Certificates }),
		"under other roots":             with(func(b *operator.Bundle) { b.Roots = string(other.root.CertificatePEM()) }),
		"under roots of another plane":  with(func(b *operator.Bundle) { b.Roots = string(newAuthority(t, "dev").root.CertificatePEM()) }),
		"of another plane":              with(func(b *operator.Bundle) { b.Plane = "dev" }),
		"without a certificate":         with(func(b *operator.Bundle) { b.Certificates = "" }),
		"with no address of a registry": with(func(b *operator.Bundle) { b.Registry = "registry" }),
		"with an intermediate in front": with(func(b *operator.Bundle) { b.Certificates = string(a.issuer.CertificatePEM()) + b.Certificates }),
		"without the issuer in the chain": with(func(b *operator.Bundle) {
			b.Certificates = b.Certificates[:strings.Index(b.Certificates, "-----END")+len("-----END CERTIFICATE-----\n")]
		}),
	} {
		if _, err := d.Accept(b, ""); err == nil {
			t.Errorf("a certificate %s is taken", what)
		}
		if _, err := os.Stat(filepath.Join(string(d), "workload.pem")); err == nil {
			t.Fatalf("a certificate %s was written", what)
		}
	}
	text, err := json.Marshal(good)
	if err != nil || strings.Contains(string(text), "PRIVATE") {
		t.Fatalf("what is handed back holds a key (%v)", err)
	}
	read, err := operator.ParseBundle(text)
	if err != nil || read != good {
		t.Fatalf("a bundle comes back as %v, %v", read, err)
	}
	o, err := d.Accept(read, "127.0.0.1:1234")
	if err != nil {
		t.Fatal(err)
	}
	asks, err := operator.ParseRequest(asked)
	if err != nil || o.Name != "ben" || o.Plane != "prod" || o.Registry != "127.0.0.1:1234" || o.Fingerprint != asks.Fingerprint || o.Source.Identity().Service != "operator-ben" {
		t.Errorf("accepted is %+v, %v", o, err)
	}
	for _, file := range []string{"workload.pem", "plane.json"} {
		if info, err := os.Stat(filepath.Join(string(d), file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	// A later certificate of the same plane takes the place of this one, and one of another plane of the same name doesn't.
	if _, err := d.Accept(a.bundle(asked, "ben"), ""); err != nil {
		t.Errorf("a later one: %v", err)
	}
	if _, err := d.Accept(other.bundle(asked, "ben"), ""); err == nil || !strings.Contains(err.Error(), "another plane") {
		t.Errorf("one of another plane: %v", err)
	}
	if _, err := d.Accept(a.lasting(asked, "ben", 2*time.Second), ""); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		_, err := operator.Open(string(d))
		if err != nil && strings.Contains(err.Error(), "ended at") {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("with a certificate that ended: %v", err)
		}
	}
	if _, err := d.Accept(a.bundle(asked, "ben"), ""); err != nil {
		t.Errorf("the next one, where the last has ended: %v", err)
	}
}
