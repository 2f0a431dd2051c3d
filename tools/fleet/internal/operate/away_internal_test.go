package operate

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// leaves is a registry that answers nothing for a while after the test began, and says of no component anything.
type leaves struct {
	registryv1.UnimplementedTenantServiceServer
	began time.Time
	away  time.Duration
}

func (l *leaves) GetTenant(ctx context.Context, _ *registryv1.GetTenantRequest) (*registryv1.GetTenantResponse, error) {
	if time.Since(l.began) < l.away {
		<-ctx.Done()
	}
	return &registryv1.GetTenantResponse{Status: &registryv1.TenantStatus{}}, ctx.Err()
}

// While the registry is away no set can say anything to it: that is not the set's silence.
func TestSetIsNotSilentWhileTheRegistryIsAway(t *testing.T) {
	for name, c := range map[string]struct {
		away time.Duration
		is   bool
	}{"it is there": {0, false}, "away for a moment": {20 * time.Second, true}, "away for most of it": {90 * time.Second, true}, "away for all of it": {time.Hour, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener, server := bufconn.Listen(1<<16), grpc.NewServer()
				registryv1.RegisterTenantServiceServer(server, &leaves{began: time.Now(), away: c.away})
				go func() { _ = server.Serve(listener) }()
				conn, err := grpc.NewClient("passthrough:///registry", append(Patient(), grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
				if err != nil {
					t.Fatal(err)
				}
				w := &work{Engine: &Engine{Conn: conn}, set: platform.Set{Tenant: id.NewTenant(), Blueprint: &blueprint.Blueprint{Components: []blueprint.Component{{Name: "iam"}}}}}
				err = w.confirm(t.Context())
				if err == nil || !strings.Contains(err.Error(), "the set did not say within 2m0s") || errors.Is(err, ErrAway) != c.is {
					t.Errorf("it is told %v", err)
				}
				_ = conn.Close()
				server.Stop()
				synctest.Wait()
			})
		})
	}
}

// delegates is a platform that delegates nothing.
type delegates struct{ platform.Platform }

func (delegates) Name() string { return "none" }
func (delegates) Delegate(context.Context, platform.Set, platform.Release, time.Time) (platform.Delegation, error) {
	return platform.Delegation{}, nil
}

// wakes is such a platform that keeps sets' servers.
type wakes struct {
	delegates
	woken *int
}

func (w wakes) Wake(context.Context, platform.Set) error { *w.woken++; return nil }

// What starts a set finds its server running, also where that was stopped after the step that made sure of it: a backup of a suspended set ends so.
func TestServerIsWokenForWhatStartsASet(t *testing.T) {
	var woken int
	w := &work{Engine: &Engine{Platform: wakes{woken: &woken}, Provisioner: func(platform.Set) (string, error) { return "", nil }, Front: func(platform.Set) Front { return Front{} }},
		op: &registryv1.Operation{}, tenant: &registryv1.TenantStatus{}, lease: &lease{}, set: platform.Set{Tenant: id.NewTenant(), Blueprint: &blueprint.Blueprint{}}}
	for steps, want := range map[string]int{StepStart: 1, StepStop: 0} {
		woken = 0
		if _, err := w.told(t.Context(), []string{steps}); err != nil || woken != want {
			t.Errorf("for %s the server is woken %d times (%v), want %d", steps, woken, err, want)
		}
	}
}

type silent struct{}

func (silent) Done(string, time.Duration) {}
func (silent) Note(string)                {}

// That the registry was away is told from what failed also where the process that carries the steps out learned it.
func TestProcessThatFailsBecauseTheRegistryIsAwaySaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		is   bool
	}{
		"it is there": {`echo 'fleet: start: it does not come up' >&2; exit 1`, false},
		"it is away":  {`echo '{"Away":true}'; echo 'fleet: start: it does not come up' >&2; exit 1`, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &work{
				Engine: &Engine{Platform: delegates{}, Report: silent{}, Command: []string{"/bin/sh", "-c", "read told; " + c.says},
					Provisioner: func(platform.Set) (string, error) { return "", nil }, Front: func(platform.Set) Front { return Front{} }},
				op: &registryv1.Operation{}, tenant: &registryv1.TenantStatus{}, lease: &lease{}, set: platform.Set{Tenant: id.NewTenant(), Blueprint: &blueprint.Blueprint{}},
			}
			process, err := w.startCarrying(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = w.delegate(t.Context(), process, []string{StepStart})
			if err == nil || !strings.HasSuffix(err.Error(), "start: it does not come up") || errors.Is(err, ErrAway) != c.is {
				t.Errorf("it is told %v", err)
			}
		})
	}
}

// The registry that nobody reaches is told from one that refuses, by who asks it and by who is told so in another process.
func TestCallThatIsNotAnsweredIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, err := grpc.NewClient("passthrough:///registry", append(Patient(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody listens") }))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		_, err = (recording{step: StepStart}).at(t.Context(), conn, "opr_1", "token")
		if took := time.Since(began); !errors.Is(err, ErrAway) || took != callWithin {
			t.Errorf("after %s: %v", took, err)
		}
		var said strings.Builder
		c := &child{conn: conn, out: &said, job: job{Steps: []string{StepStart}}}
		if err := c.carryOut(t.Context()); !errors.Is(err, ErrAway) || said.String() != `{"Away":true}`+"\n" {
			t.Errorf("it says %q and ends with %v", said.String(), err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err = (recording{step: StepStart}).at(short, conn, "opr_1", "token"); err == nil || errors.Is(err, ErrAway) {
			t.Errorf("who waits for a second has learned nothing, and is told %v", err)
		}
	})
}
