package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// described are the services that reflection tells of.
type described []string

// GetServiceInfo serves reflection, which asks for the names alone.
func (d described) GetServiceInfo() map[string]grpc.ServiceInfo {
	out := make(map[string]grpc.ServiceInfo, len(d))
	for _, name := range d {
		out[name] = grpc.ServiceInfo{}
	}
	return out
}

// reflector serves gRPC's reflection, v1, by grpc-go's own implementation of it.
func reflector(d described, options ...connect.HandlerOption) (string, http.Handler) {
	serves := reflection.NewServerV1(reflection.ServerOptions{Services: d})
	return reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName, connect.NewBidiStreamHandler(
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName,
		func(ctx context.Context, stream *connect.BidiStream[reflectionv1.ServerReflectionRequest, reflectionv1.ServerReflectionResponse]) error {
			return serves.ServerReflectionInfo(reflected{ctx: ctx, stream: stream})
		}, options...)
}

// reflected is a stream of Connect's as grpc-go's generated code wants it. Of grpc.ServerStream reflection calls Context alone.
type reflected struct {
	grpc.ServerStream
	ctx    context.Context //nolint:containedctx // the interface asks the stream for it
	stream *connect.BidiStream[reflectionv1.ServerReflectionRequest, reflectionv1.ServerReflectionResponse]
}

func (r reflected) Context() context.Context { return r.ctx }

func (r reflected) Send(m *reflectionv1.ServerReflectionResponse) error { return r.stream.Send(m) }

// Recv ends with io.EOF itself, which reflection looks for, and not with an error that wraps it.
func (r reflected) Recv() (*reflectionv1.ServerReflectionRequest, error) {
	m, err := r.stream.Receive()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	return m, err
}
