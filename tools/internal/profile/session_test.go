package profile_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/tools/internal/profile"
	"a3os.app/tools/internal/profile/profiletest"
)

const (
	alice     = "usr_01h455vb4pex5vsknk084sn02q"
	workspace = "wsp_01h455vb4pex5vsknk084sn02q"
	account   = "svc_01h455vb4pex5vsknk084sn02q"

	childHome = "PROFILE_TEST_CHILD_HOME"
)

// TestMain lets this binary be the other process that refreshes.
func TestMain(m *testing.M) {
	if home := os.Getenv(childHome); home != "" {
		os.Exit(child(home))
	}
	os.Exit(m.Run())
}

// child asks for a token again and again, each time anew.
func child(home string) int {
	for range 5 {
		s, err := profile.In(home).Open("alice")
		if err == nil {
			_, err = s.Token(context.Background(), "")
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			return 1
		}
	}
	return 0
}

func store(t *testing.T, p *profile.Profile) profile.Store {
	t.Helper()
	s := profile.In(t.TempDir())
	if err := s.Save(p); err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, s profile.Store, name string) *profile.Session {
	t.Helper()
	session, err := s.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestProcessesThatRefreshAtOnceLoseNoRotation(t *testing.T) {
	n := profiletest.New(t, nil)
	n.Life = time.Second // every call must refresh
	s := store(t, n.Profile("alice", alice))
	const processes = 4
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childHome+"="+s.Home())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("a process could not refresh: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	if c := n.Counts(); c.Refreshes != processes*5 || c.Reused != 0 {
		t.Errorf("counted %+v, want %d refreshes and none reused", c, processes*5)
	}
	if p, err := s.Load("alice"); err != nil || n.Spent(p.RefreshToken) {
		t.Errorf("the stored refresh token is spent (%v)", err)
	}
}

func TestCallsAtOnceShareOneRefresh(t *testing.T) {
	n := profiletest.New(t, nil)
	n.Join(alice, workspace)
	session := open(t, store(t, n.Profile("alice", alice)), "alice")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := session.Token(t.Context(), workspace); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c := n.Counts(); c.Refreshes != 1 || c.Exchanges != 1 {
		t.Errorf("counted %+v, want one refresh and one exchange", c)
	}
}

func TestTokenWithLessThanAMinuteLeftIsNotHandedOut(t *testing.T) {
	n := profiletest.New(t, nil)
	n.Life = 59 * time.Second
	s := store(t, n.Profile("alice", alice))
	first, err := open(t, s, "alice").Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	n.Life = 10 * time.Minute
	second, err := open(t, s, "alice").Token(t.Context(), "")
	if err != nil || second == first {
		t.Fatalf("the old token was handed out again (%v)", err)
	}
	if third, err := open(t, s, "alice").Token(t.Context(), ""); err != nil || third != second {
		t.Errorf("a good token was not used again (%v)", err)
	}
}

func TestWorkspaceTokenIsForThatWorkspace(t *testing.T) {
	n := profiletest.New(t, nil)
	n.Join(alice, workspace)
	session := open(t, store(t, n.Profile("alice", alice)), "alice")
	token, err := session.Token(t.Context(), workspace)
	if err != nil {
		t.Fatal(err)
	}
	g, ok := n.Caller(http.Header{"Authorization": {"Bearer " + token}})
	if !ok || g != (profiletest.Grant{Subject: alice, Workspace: workspace}) {
		t.Errorf("the token stands for %+v", g)
	}
	if _, err := session.Token(t.Context(), "wsp_other"); fault.KindOf(err) != fault.PermissionDenied {
		t.Errorf("another workspace: %v", err)
	}
}

func TestKeptTokenThatWasRevokedIsReplaced(t *testing.T) {
	n := profiletest.New(t, nil)
	n.Join(alice, workspace)
	session := open(t, store(t, n.Profile("alice", alice)), "alice")
	if _, err := session.Token(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	n.RevokeAccess()
	if _, err := session.Token(t.Context(), workspace); err != nil {
		t.Errorf("the session is good, and yet: %v", err)
	}
}

func TestSessionThatIsOverSaysWhatToDo(t *testing.T) {
	n := profiletest.New(t, nil)
	p := n.Profile("alice", alice)
	p.RefreshToken = "none"
	_, err := open(t, store(t, p), "alice").Token(t.Context(), "")
	if fault.KindOf(err) != fault.Unauthenticated || !strings.Contains(err.Error(), "a3 --profile alice login") {
		t.Errorf("got %v", err)
	}
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return key, file
}

func TestServiceAccountSignsInWithItsKey(t *testing.T) {
	n := profiletest.New(t, nil)
	key, file := newKey(t)
	n.Register(account, &key.PublicKey)
	n.Join(account, workspace)
	s := profile.In(t.TempDir())
	p := &profile.Profile{Name: "ci", URL: profiletest.URL, CACert: n.CAFile, DialAddress: n.Address, ServiceAccountID: account, PrivateKey: file}
	if err := s.Assert(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, s, "ci").Token(t.Context(), workspace); err != nil {
		t.Fatal(err)
	}
	if c := n.Counts(); c.Assertions != 1 || c.Exchanges != 1 {
		t.Errorf("counted %+v", c)
	}
	other, _ := newKey(t)
	n.Register(account, &other.PublicKey)
	p.Access = nil
	if err := s.Assert(t.Context(), p); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("with another key: %v", err)
	}
}

func TestRefusedServiceAccountLeavesNoProfile(t *testing.T) {
	n := profiletest.New(t, nil)
	_, file := newKey(t)
	s := profile.In(t.TempDir())
	p := &profile.Profile{Name: "ci", URL: profiletest.URL, CACert: n.CAFile, DialAddress: n.Address, ServiceAccountID: account, PrivateKey: file}
	if err := s.Assert(t.Context(), p); err == nil {
		t.Fatal("an unknown account signed in")
	}
	if names, _ := s.List(); len(names) != 0 {
		t.Errorf("there is %q", names)
	}
}

func TestOnlyTheNamedAuthorityIsBelieved(t *testing.T) {
	n := profiletest.New(t, nil)
	trusting, err := profile.Client("", n.Address)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := trusting.Get(profiletest.URL); err == nil { //nolint:noctx // it must not get anywhere
		_ = res.Body.Close()
		t.Error("a certificate of an unknown authority was believed")
	}
	if _, err := profile.Client(filepath.Join(t.TempDir(), "none.pem"), ""); err == nil {
		t.Error("a missing authority was passed over")
	}
}

func TestRedirectIsNotFollowedAndHTTP2IsSpoken(t *testing.T) {
	n := profiletest.New(t, http.RedirectHandler("https://elsewhere.example.com", http.StatusFound))
	client, err := profile.Client(n.CAFile, n.Address)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, profiletest.URL+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusFound || res.ProtoMajor != 2 {
		t.Errorf("answered %s by %s", res.Status, res.Proto)
	}
}
