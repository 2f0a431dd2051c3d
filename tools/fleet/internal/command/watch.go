package command

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"a3os.app/libs/fault"
)

// watch shows something of the registry's at each change, until shown says that it has ended, also where the registry is started anew meanwhile. open
// begins the stream of it.
func watch[M any](ctx context.Context, a *app, open func(...grpc.CallOption) (grpc.ServerStreamingClient[M], error), shown func(*M) (ended bool, err error)) error {
	const again = time.Second
	for {
		err := watchOnce(a, open, shown)
		if fault.KindOf(err) != fault.Unavailable || ctx.Err() != nil {
			return err
		}
		_, _ = fmt.Fprintf(a.errOut, "· the registry does not answer, waiting for it: %v\n", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

func watchOnce[M any](a *app, open func(...grpc.CallOption) (grpc.ServerStreamingClient[M], error), shown func(*M) (ended bool, err error)) error {
	stream, err := open(grpc.WaitForReady(true))
	if err != nil {
		return fault.FromRPC(err)
	}
	for {
		res, err := stream.Recv()
		if err != nil {
			return fault.FromRPC(err)
		}
		if a.format != "json" {
			a.clear()
		}
		if ended, err := shown(res); ended || err != nil {
			return err
		}
	}
}
