package iam_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/pg"
	"a3os.app/libs/set"
)

// sibling is another service of the set, as far as it believes tokens: it follows iam over mutual TLS.
func (p *place) sibling(service string) *set.Member {
	p.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(p.T)
	cfg := p.cfg.Set
	cfg.Listen, cfg.Certificates = listener.Addr().String(), p.keypair(service)
	_ = listener.Close()
	owner := must(cfg.Owner())(p.T)
	db := must(pg.Open(p.Context(), pg.Config{URL: p.cfg.DatabaseURL.Reveal(), Owner: owner}))(p.T)
	p.Cleanup(db.Close)
	member := must(set.Join(p.Context(), cfg, service, owner))(p.T)
	ctx, stop := context.WithCancel(p.Context())
	done := make(chan error, 1)
	go func() { done <- member.Serve(ctx, set.Serving{}) }()
	p.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			p.Errorf("%s ended with %v", service, err)
		}
	})
	return member
}

// rotate is the admin's call, as soon as it is allowed.
func (p *place) rotate(admin string, emergency bool) *iamv1.SigningKeySet {
	p.Helper()
	// Nobody waits a minute for the next key to be old enough.
	p.db.Exec(p.T, "UPDATE iam.signing_keys SET created_at = created_at - interval '2 minutes' WHERE state = 'next'")
	res := must(as(p, admin, iamv1connect.NewAdminSigningKeyServiceClient).RotateSigningKeys(p.Context(),
		connect.NewRequest(&iamv1.RotateSigningKeysRequest{Reason: "a rotation that a test wants", Emergency: emergency})))(p.T)
	return res.Msg
}

// heard waits until services know the key that is next to sign: for that it is published a minute before, which this test doesn't wait.
// A service that knows it finds fault with the signature, not with the key's id.
func (p *place) heard(token string, siblings []*set.Member) {
	p.Helper()
	header, rest, _ := strings.Cut(token, ".")
	fields := map[string]any{}
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(header))(p.T), &fields); err != nil {
		p.Fatal(err)
	}
	published := must(as(p, token, iamv1connect.NewSigningKeyServiceClient).GetSigningKeySet(p.Context(), connect.NewRequest(&iamv1.GetSigningKeySetRequest{})))(p.T)
	for _, k := range published.Msg.GetSigningKeys() {
		if k.GetState() == iamv1.SigningKeyState_SIGNING_KEY_STATE_NEXT {
			fields["kid"] = k.GetKeyId()
		}
	}
	forged := base64.RawURLEncoding.EncodeToString(must(json.Marshal(fields))(p.T)) + "." + rest
	for _, s := range siblings {
		for deadline := time.Now().Add(20 * time.Second); ; {
			_, err := s.Tokens.Verify(p.Context(), forged)
			if err == nil {
				p.Fatalf("%s believes a token under a key that did not sign it", s.Identity.Service)
			}
			if !strings.Contains(err.Error(), "no such key") {
				break
			}
			if time.Now().After(deadline) {
				p.Fatalf("%s never hears of the next key: %v", s.Identity.Service, err)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// Programs that sign in all the time, and services that verify what they got, notice nothing of five rotations.
func TestNoRequestFailsWhileKeysRotate(t *testing.T) {
	p := run(t)
	admin := p.signIn(bootstrapCode)
	siblings := []*set.Member{p.sibling("discovery"), p.sibling("audit")}
	space := must(as(p, admin, iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace(t.Context(), connect.NewRequest(&iamv1.CreateWorkspaceRequest{Name: "w"})))(t).Msg

	var verified, failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			held := admin
			for {
				select {
				case <-stop:
					return
				default:
				}
				fresh := p.exchange(admin, space.GetId())
				for _, token := range []string{fresh, held} {
					for _, s := range siblings {
						if _, err := s.Tokens.Verify(t.Context(), token); err != nil {
							failed.Add(1)
							t.Errorf("%s refuses a good token: %v", s.Identity.Service, err)
						}
						verified.Add(1)
					}
				}
				held = fresh
			}
		})
	}
	const rotations = 5
	for range rotations {
		before := verified.Load()
		p.heard(admin, siblings)
		p.rotate(admin, false)
		for deadline := time.Now().Add(20 * time.Second); verified.Load() < before+100; {
			if time.Now().After(deadline) {
				t.Fatal("the load stopped")
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d verifications over %d rotations, %d failed", verified.Load(), rotations, failed.Load())
}

func TestNothingSignedBeforeAnEmergencyIsBelievedAfterwards(t *testing.T) {
	p := run(t)
	admin := p.signIn(bootstrapCode)
	siblings := []*set.Member{p.sibling("discovery"), p.sibling("audit")}
	for _, s := range siblings {
		if _, err := s.Tokens.Verify(t.Context(), admin); err != nil {
			t.Fatal(err)
		}
	}
	after := p.rotate(admin, true)
	began := time.Now()
	if n := len(after.GetSigningKeys()); n != 2 {
		t.Errorf("%d keys after an emergency", n)
	}
	for _, s := range siblings {
		for {
			_, err := s.Tokens.Verify(t.Context(), admin)
			if err != nil {
				t.Logf("%s refuses after %s", s.Identity.Service, time.Since(began).Round(time.Millisecond))
				break
			}
			if time.Since(began) > 5*time.Second {
				t.Fatalf("%s believes a token of before after %s", s.Identity.Service, time.Since(began))
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	_, err := as(p, admin, iamv1connect.NewIdentityServiceClient).GetSelf(t.Context(), connect.NewRequest(&iamv1.GetSelfRequest{}))
	if fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("iam itself: %v", err)
	}
	if out := p.post("/oauth2/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {admin},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}}); out.AccessToken != "" {
		t.Error("a token of before buys a new one")
	}
}
