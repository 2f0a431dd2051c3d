package server

import (
	"bufio"
	"net/http"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// GetMetrics answers what is told at /metrics, in parts that fit a message however many tenants there are.
func (s *figureReads) GetMetrics(_ *registryv1.GetMetricsRequest, stream grpc.ServerStreamingServer[registryv1.GetMetricsResponse]) error {
	const part = 64 << 10
	req, err := http.NewRequestWithContext(stream.Context(), http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	answer := &metricsAnswer{header: http.Header{}, status: http.StatusOK}
	answer.text = bufio.NewWriterSize(parts(func(text []byte) error { return stream.Send(&registryv1.GetMetricsResponse{Text: text}) }), part)
	s.Metrics.ServeHTTP(answer, req)
	if answer.status != http.StatusOK {
		// It gathers for two at a time.
		return fault.New(fault.Unavailable, "the figures can't be told now; try again shortly")
	}
	return answer.text.Flush()
}

// metricsAnswer takes what a handler answers, and passes on the text.
type metricsAnswer struct {
	header http.Header
	status int
	text   *bufio.Writer
}

func (a *metricsAnswer) Header() http.Header    { return a.header }
func (a *metricsAnswer) WriteHeader(status int) { a.status = status }

func (a *metricsAnswer) Write(text []byte) (int, error) {
	if a.status != http.StatusOK {
		return len(text), nil // a sentence of the handler's, for who speaks HTTP
	}
	return a.text.Write(text)
}

// parts sends what is written.
type parts func(text []byte) error

func (send parts) Write(text []byte) (int, error) {
	if err := send(text); err != nil {
		return 0, err
	}
	return len(text), nil
}
