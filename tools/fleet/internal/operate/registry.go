package operate

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/asked"
)

// Registry is where the plane's registry is, and who it is proven by.
type Registry struct {
	// Plane is `dev` or `prod`.
	Plane string
	// Address is host:port.
	Address string
	// Service is its name in its certificate.
	Service string
	// Roots are the plane's, PEM.
	Roots string
}

// retries has calls that a restart of the registry cut off made again: each of them can be. A registry that is away is waited for, as
// long as the call's context lets it.
const retries = `{"methodConfig": [{"name": [{}], "waitForReady": true, "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "5s", "backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// ErrAway is a registry that did not answer. It says nothing of any set: what was to be done is done when the registry is back.
var ErrAway = errors.New("the registry did not answer")

// tooSlow is how long a registry that is there takes to answer at most.
const tooSlow = 10 * time.Second

// unanswered is a call that was not answered; its text and its kind are those of the cause.
type unanswered struct{ error }

func (u unanswered) Unwrap() error        { return u.error }
func (u unanswered) Is(target error) bool { return target == ErrAway }

// Patient has a connection to the registry outlast its restarts: a call that one cut off is made again, and a registry that is away is
// waited for, but for no longer than callWithin. What fails because it was away all the same is ErrAway.
func Patient() []grpc.DialOption {
	within := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, callWithin)
		defer cancel()
		began := time.Now()
		err := call(ctx, method, req, reply, conn, opts...)
		// Whose own time was nearly up when it called has not learned that nobody is there.
		if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded && time.Since(began) >= tooSlow {
			return unanswered{err}
		}
		return err
	}
	// A tenant's authority is made known a moment before its provisioner calls: the first connection may come too early.
	pace := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second}
	return []grpc.DialOption{grpc.WithDefaultServiceConfig(retries), grpc.WithChainUnaryInterceptor(within),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pace, MinConnectTimeout: 5 * time.Second})}
}

// Dial connects to the registry with a keypair; it connects when it is used.
func (r Registry) Dial(source *workload.Source) (*grpc.ClientConn, error) {
	pool, err := workload.ParseRoots(workload.TrustDomain{Plane: r.Plane}, []byte(r.Roots))
	if err != nil {
		return nil, fmt.Errorf("read whom to believe the registry by: %w", err)
	}
	anchors := workload.AnchorsFunc(func(d workload.TrustDomain) (*x509.CertPool, error) {
		if d != (workload.TrustDomain{Plane: r.Plane}) {
			return nil, fmt.Errorf("%s is not the plane's", d)
		}
		return pool, nil
	})
	creds, err := workload.GRPCClientCredentials(source, anchors, workload.Identity{Plane: r.Plane, Service: r.Service})
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+r.Address, append([]grpc.DialOption{asked.Named(), grpc.WithTransportCredentials(creds)}, Patient()...)...)
}
