package plane

import (
	"context"
	"errors"
	"io"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// MetricsAddress is where Prometheus finds the registry's figures, on the machine that fleet works from, where it can't go to the registry itself.
const MetricsAddress = "127.0.0.1:9464"

// Metrics writes what the registry tells of itself and of all tenants, in the text format of Prometheus.
func (p *Plane) Metrics(ctx context.Context, w io.Writer) error {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return err
	}
	defer done()
	stream, err := registryv1.NewFigureServiceClient(conn).GetMetrics(ctx, &registryv1.GetMetricsRequest{})
	for err == nil {
		var part *registryv1.GetMetricsResponse
		if part, err = stream.Recv(); err == nil {
			_, err = w.Write(part.GetText())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	err = fault.FromRPC(err)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind == fault.Unimplemented {
		return fault.New(fault.FailedPrecondition, "the registry's release serves its figures on its own machine only: upgrade it with fleet plane up")
	}
	return err
}
