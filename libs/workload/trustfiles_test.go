package workload_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// opened is TrustFiles over files that hold these roots.
func opened(t *testing.T, w world) (trust *workload.TrustFiles, own string) {
	t.Helper()
	dir := t.TempDir()
	own, control := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "plane.pem")
	put(t, own, w.mine.root.CertificatePEM())
	put(t, control, w.control.root.CertificatePEM())
	trust, err := workload.OpenTrust(plane, w.tenant(), own, control)
	if err != nil {
		t.Fatal(err)
	}
	return trust, own
}

func put(t *testing.T, file string, parts ...[]byte) {
	t.Helper()
	var text []byte
	for _, p := range parts {
		text = append(text, p...)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func reload(t *testing.T, trust *workload.TrustFiles) {
	t.Helper()
	if changed, err := trust.Reload(); err != nil || !changed {
		t.Fatalf("the new roots were not taken: %v, %v", changed, err)
	}
}

// A tenant's root is replaced while a server and its callers run: with both roots on disk both are believed, and what stands on the old
// one falls, also on connections that stand, when it is taken out.
func TestRootIsReplacedWithOverlapWithoutARestart(t *testing.T) {
	w := newWorld(t)
	next := hold(t, w.mine.root.TrustDomain())
	trust, file := opened(t, w)
	verifier, err := workload.NewVerifier(trust)
	if err != nil {
		t.Fatal(err)
	}
	config, err := workload.ServerTLS(w.mine.source(t, "iam"), trust)
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, config, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if who, ok, err := verifier.Peer(*r.TLS); err != nil || !ok {
			http.Error(rw, "nobody that is known here", http.StatusUnauthorized)
		} else {
			_, _ = io.WriteString(rw, who.Service) //nolint:gosec // G705: nobody renders it
		}
	}))
	// A caller of each root, with a connection that stands; they believe the server's by a pool of their own.
	caller := func(c ceremony) *http.Client {
		keypair := pair(t, c.keypair(t, "audit"))
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
			RootCAs: w.mine.roots(t), ServerName: of(w.tenant(), "iam").ServerName(), MinVersion: tls.VersionTLS13,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &keypair, nil }}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	believed := func(c *http.Client) bool {
		body, err := get(t.Context(), c.Transport, "https://"+addr)
		return err == nil && body == "audit"
	}
	old, fresh := caller(w.mine), caller(next)
	if !believed(old) || believed(fresh) {
		t.Fatal("before anything changed: the old root's caller must be believed, and the new one's not")
	}
	put(t, file, w.mine.root.CertificatePEM(), next.root.CertificatePEM())
	reload(t, trust)
	if !believed(old) || !believed(fresh) {
		t.Error("with both roots both callers must be believed")
	}
	put(t, file, next.root.CertificatePEM())
	reload(t, trust)
	if believed(old) {
		t.Error("a caller of the root that was taken out is believed on its connection")
	}
	if !believed(fresh) {
		t.Error("the new root's caller is not believed")
	}
}

// A client's standing connections are not used any more when the roots that proved the server are others.
func TestClientAsksAnewWhoAnswersWhenRootsChange(t *testing.T) {
	w := newWorld(t)
	trust, file := opened(t, w)
	var calls atomic.Int64
	config, err := workload.ServerTLS(w.mine.source(t, "iam"), w.trust)
	if err != nil {
		t.Fatal(err)
	}
	iam := of(w.tenant(), "iam")
	client := transport(t, w.mine.source(t, "audit"), trust, workload.Addresses{iam: serve(t, config, greeter(w.trust, &calls))})
	if _, err := get(t.Context(), client, "https://"+iam.ServerName()); err != nil {
		t.Fatal(err)
	}
	put(t, file, hold(t, w.mine.root.TrustDomain()).root.CertificatePEM())
	reload(t, trust)
	if answer, err := get(t.Context(), client, "https://"+iam.ServerName()); err == nil {
		t.Errorf("a server under a root that was taken out still answers: %q", answer)
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls arrived", calls.Load())
	}
}

func TestRootsThatAreOfNoUseChangeNothing(t *testing.T) {
	w := newWorld(t)
	trust, file := opened(t, w)
	roots := func() *x509.CertPool {
		t.Helper()
		pool, err := trust.Roots(w.mine.root.TrustDomain())
		if err != nil {
			t.Fatal(err)
		}
		return pool
	}
	before := roots()
	if changed, err := trust.Reload(); changed || err != nil || roots() != before {
		t.Errorf("the same file counts as other roots: %v, %v", changed, err)
	}
	for name, text := range map[string][]byte{
		"another tenant's": w.sibling.root.CertificatePEM(), "the plane's": w.control.root.CertificatePEM(),
		"an intermediate": w.mine.issuer.CertificatePEM(), "garbage": []byte("garbage"), "nothing": nil,
	} {
		put(t, file, text)
		if changed, err := trust.Reload(); changed || err == nil || roots() != before {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
	good := filepath.Join(filepath.Dir(file), "plane.pem")
	for name, text := range map[string][]byte{"empty": nil, "garbage": []byte("garbage")} {
		put(t, file, text)
		if _, err := workload.OpenTrust(plane, w.tenant(), file, good); err == nil || !strings.Contains(err.Error(), w.mine.root.TrustDomain().String()) {
			t.Errorf("%s: a process starts without roots: %v", name, err)
		}
	}
	control, err := workload.OpenTrust(plane, id.Tenant{}, "", good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Roots(w.mine.root.TrustDomain()); err == nil {
		t.Error("a process of the plane trusts a tenant")
	}
}
