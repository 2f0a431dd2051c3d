package workload_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// issuer answers signing requests as iam does, for a caller it knows, and counts them.
type issuer struct {
	authority workload.Authority
	caller    workload.Identity
	asked     atomic.Int64
}

func (i *issuer) Renew(_ context.Context, csr []byte) ([]byte, error) {
	i.asked.Add(1)
	return i.authority.IssueLeaf(csr, i.caller, time.Now())
}

// renewing runs a Renewer until the test ends.
func renewing(t *testing.T, source *workload.Source, anchors workload.Anchors, renew func(context.Context, []byte) ([]byte, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- workload.Renewer{Source: source, Anchors: anchors, Renew: renew, Log: slog.New(slog.DiscardHandler)}.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the renewer ended with %v", err)
		}
	})
}

// pass lets time go by in a synctest bubble, until all that should have happened by then has.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestCertificateRenewsAtTwoThirdsOfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := w.mine.source(t, "audit")
		iam := &issuer{authority: w.mine.issuer, caller: source.Identity()}
		first := source.Leaf()
		renewing(t, source, w.trust, iam.Renew)

		life := first.NotAfter.Sub(first.NotBefore)
		pass(time.Until(first.NotBefore.Add(life*2/3 - life/20)))
		if iam.asked.Load() != 0 || source.Leaf() != first {
			t.Fatal("it renewed before its time")
		}
		pass(life/10 + 2*time.Minute)
		second := source.Leaf()
		if iam.asked.Load() != 1 || second == first {
			t.Fatalf("it asked %d times by the end of its window", iam.asked.Load())
		}
		if key, ok := second.PublicKey.(*ecdsa.PublicKey); !ok || key.Equal(first.PublicKey) {
			t.Error("the new certificate is for the old key")
		}
		pass(8 * 7 * 24 * time.Hour)
		if asked := iam.asked.Load(); asked < 10 || asked > 14 {
			t.Errorf("it renewed %d times in nine weeks, want about twelve", asked)
		}
		if time.Until(source.NotAfter()) <= 0 {
			t.Error("it let the certificate expire")
		}
	})
}

func TestRenewalIsAskedForAgainUntilItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := w.mine.source(t, "audit")
		iam := &issuer{authority: w.mine.issuer, caller: source.Identity()}
		first := source.Leaf()
		var down atomic.Bool
		var refused atomic.Int64
		down.Store(true)
		renewing(t, source, w.trust, func(ctx context.Context, csr []byte) ([]byte, error) {
			if down.Load() {
				refused.Add(1)
				return nil, errors.New("iam is down")
			}
			return iam.Renew(ctx, csr)
		})
		pass(time.Until(first.NotAfter) - time.Hour)
		// About 55 hours of failure at a few minutes between tries: neither given up nor hammered.
		if tries := refused.Load(); tries < 300 || tries > 1200 {
			t.Errorf("it asked %d times", tries)
		}
		down.Store(false)
		pass(10 * time.Minute)
		if source.Leaf() == first || iam.asked.Load() != 1 {
			t.Errorf("with iam back it asked %d times and has a new certificate: %v", iam.asked.Load(), source.Leaf() != first)
		}
	})
}

func TestRenewerTakesNoAnswerButItsOwn(t *testing.T) {
	for name, answer := range map[string]func(w world, self workload.Identity, csr []byte) ([]byte, error){
		"another service": func(w world, self workload.Identity, csr []byte) ([]byte, error) {
			return w.mine.issuer.IssueLeaf(csr, of(self.Tenant, "iam"), time.Now())
		},
		"another tenant": func(w world, _ workload.Identity, csr []byte) ([]byte, error) {
			return w.sibling.issuer.IssueLeaf(csr, of(w.sibling.root.TrustDomain().Tenant, "audit"), time.Now())
		},
		"the control plane": func(w world, _ workload.Identity, csr []byte) ([]byte, error) {
			return w.control.issuer.IssueLeaf(csr, control("audit"), time.Now())
		},
		"another key": func(w world, self workload.Identity, _ []byte) ([]byte, error) {
			csr, _, err := workload.NewRequest()
			if err != nil {
				return nil, err
			}
			return w.mine.issuer.IssueLeaf(csr, self, time.Now())
		},
		"an expired leaf": func(w world, self workload.Identity, csr []byte) ([]byte, error) {
			return w.mine.issuer.IssueLeaf(csr, self, time.Now().Add(-workload.LeafLife))
		},
		"a leaf that ends no later": func(w world, self workload.Identity, csr []byte) ([]byte, error) {
			return w.mine.issuer.IssueLeaf(csr, self, time.Now().Add(-6*24*time.Hour-time.Hour))
		},
		"no certificate": func(world, workload.Identity, []byte) ([]byte, error) { return nil, nil },
		"garbage":        func(world, workload.Identity, []byte) ([]byte, error) { return []byte("garbage"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				keypair := w.mine.keypair(t, "audit")
				dir := t.TempDir()
				source := openIn(t, dir, keypair)
				before := onDisk(t, dir)
				asked := 0
				renewing(t, source, w.trust, func(_ context.Context, csr []byte) ([]byte, error) {
					asked++
					return answer(w, source.Identity(), csr)
				})
				pass(6 * 24 * time.Hour)
				if asked < 10 {
					t.Fatalf("it asked %d times", asked)
				}
				if !source.Leaf().Equal(keypair.Leaf()) || onDisk(t, dir) != before {
					t.Errorf("it took the answer: now %v", source.Leaf().URIs)
				}
			})
		})
	}
}

func TestRenewerTakesNoAnswerUnderRootsItDoesNotTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := w.mine.source(t, "audit")
		first := source.Leaf()
		twin := hold(t, w.mine.root.TrustDomain()) // the same names, another key
		iam := &issuer{authority: twin.issuer, caller: source.Identity()}
		renewing(t, source, w.trust, iam.Renew)
		pass(6 * 24 * time.Hour)
		if iam.asked.Load() == 0 || source.Leaf() != first {
			t.Errorf("it asked %d times and took the answer: %v", iam.asked.Load(), source.Leaf() != first)
		}
	})
}

func TestKeypairPutOnDiskIsTakenWithoutRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dir := t.TempDir()
		source := openIn(t, dir, w.mine.keypair(t, "audit"))
		renewing(t, source, w.trust, func(context.Context, []byte) ([]byte, error) { return nil, errors.New("iam is down") })
		pass(9 * 24 * time.Hour)
		if time.Now().Before(source.NotAfter()) {
			t.Fatal("the certificate should have expired")
		}
		// What fleet does when a set resumes; and once more while nothing is due.
		for _, after := range []time.Duration{0, 24 * time.Hour} {
			pass(after)
			issued := w.mine.keypair(t, "audit")
			if err := issued.Save(dir); err != nil {
				t.Fatal(err)
			}
			pass(2 * time.Minute)
			if !source.Leaf().Equal(issued.Leaf()) {
				t.Errorf("%v later a new keypair was not taken", after)
			}
		}
	})
}

func TestRenewalSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dir := t.TempDir()
		source := openIn(t, dir, w.mine.keypair(t, "audit"))
		iam := &issuer{authority: w.mine.issuer, caller: source.Identity()}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		renewer := workload.Renewer{Source: source, Anchors: w.trust, Renew: iam.Renew, Log: slog.New(slog.DiscardHandler)}
		if err := renewer.Run(stopped); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		pass(6 * 24 * time.Hour) // the process is down while its certificate falls due
		again, err := workload.OpenSource(dir, source.Identity())
		if err != nil {
			t.Fatal(err)
		}
		renewing(t, again, w.trust, iam.Renew)
		pass(time.Minute)
		if iam.asked.Load() != 1 {
			t.Fatalf("after the restart it asked %d times", iam.asked.Load())
		}
		third, err := workload.OpenSource(dir, source.Identity())
		if err != nil || !third.Leaf().Equal(again.Leaf()) {
			t.Errorf("the renewed keypair is not what a further start finds: %v", err)
		}
	})
}

func TestSourceNeverTurnsIntoSomebodyElse(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	source := openIn(t, dir, w.mine.keypair(t, "audit"))
	before, leaf := onDisk(t, dir), source.Leaf()
	for name, keypair := range map[string]workload.Keypair{
		"another service": w.mine.keypair(t, "iam"),
		"another tenant":  w.sibling.keypair(t, "audit"),
		"another plane":   w.prod.keypair(t, "audit"),
		"nobody":          {},
	} {
		if err := source.Store(keypair); err == nil || source.Leaf() != leaf || onDisk(t, dir) != before {
			t.Errorf("%s: stored, %v", name, err)
		}
	}
	if _, err := workload.OpenSource(dir, of(w.tenant(), "iam")); err == nil {
		t.Error("iam started with audit's keypair")
	}
	if err := w.mine.keypair(t, "iam").Save(dir); err != nil {
		t.Fatal(err)
	}
	if changed, err := source.Reload(); err == nil || changed || source.Leaf() != leaf {
		t.Errorf("reloaded another service's keypair: %v, %v", changed, err)
	}
}

func TestKeypairFileIsItsOwnersAloneAndWhole(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "identity")
	source := openIn(t, dir, w.mine.keypair(t, "audit"))
	path := filepath.Join(dir, "workload.pem")
	if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // G302: that is the mistake
		t.Fatal(err)
	}
	if _, err := workload.OpenSource(dir, source.Identity()); err == nil {
		t.Error("a key that others can read was taken")
	}
	later, err := w.mine.issuer.IssueKeypair(source.Identity(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Store(later); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory holds %v, %v", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a renewed key has mode %v, %v", info.Mode(), err)
	}
	for name, text := range map[string]string{
		"half a file": onDisk(t, dir)[:400], "empty": "", "no key": string(pemOf(later.Leaf())),
		"another key": func() string {
			mixed, err := w.mine.keypair(t, "audit").Encode()
			if err != nil {
				t.Fatal(err)
			}
			return string(mixed[:len(mixed)/4]) + onDisk(t, dir)
		}(),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := workload.OpenSource(dir, source.Identity()); err == nil {
			t.Errorf("%s was taken", name)
		}
		if _, err := source.Reload(); err == nil || !source.Leaf().Equal(later.Leaf()) {
			t.Errorf("%s: the running process lost its keypair: %v", name, err)
		}
	}
}

func TestVerifierForgetsWithExpiryAndWithRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var roots atomic.Pointer[x509.CertPool]
		roots.Store(w.mine.roots(t))
		verifier, err := workload.NewVerifier(workload.AnchorsFunc(func(d workload.TrustDomain) (*x509.CertPool, error) {
			if d != w.mine.root.TrustDomain() {
				return nil, errors.New("not here")
			}
			return roots.Load(), nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		state := presented(t, pair(t, w.mine.keypair(t, "audit")))
		accepts := func() bool {
			got, ok, err := verifier.Peer(state)
			return err == nil && ok && got == of(w.tenant(), "audit")
		}
		for range 2 { // proven, then remembered
			if !accepts() {
				t.Fatal("it refuses a good peer")
			}
		}
		roots.Store(hold(t, workload.TrustDomain{Plane: plane, Tenant: id.NewTenant()}).roots(t))
		if accepts() {
			t.Error("it accepts a peer whose root is gone")
		}
		roots.Store(nil)
		if accepts() {
			t.Error("it accepts a peer where no root is left")
		}
		roots.Store(w.mine.roots(t))
		if !accepts() {
			t.Error("it refuses the peer though the root is back")
		}
		pass(workload.LeafLife + time.Second)
		if accepts() {
			t.Error("it accepts an expired peer on a connection that still stands")
		}
	})
}

func openIn(t testing.TB, dir string, keypair workload.Keypair) *workload.Source {
	t.Helper()
	if err := keypair.Save(dir); err != nil {
		t.Fatal(err)
	}
	source, err := workload.OpenSource(dir, keypair.Identity())
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func onDisk(t testing.TB, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "workload.pem")) //nolint:gosec // G304: the test's own directory
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
