package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"

	"a3os.app/libs/failpoint"
)

const (
	// A message of the stream carries at most so many records and about so many bytes.
	batchRecords = 2000
	batchBytes   = 1 << 20
	tellEvery    = time.Second
)

// sink streams what a connector finds to discovery.
type sink struct {
	ctx      context.Context //nolint:containedctx // a sink lives as long as its slice
	ingest   discoveryv1connect.IngestServiceClient
	attempt  uint32
	deadline time.Time
	stop     context.CancelCauseFunc

	stream    *connect.ClientStreamForClient[discoveryv1.IngestRecordsRequest, discoveryv1.IngestRecordsResponse]
	batch     []*discoveryv1.Record
	bytes     int
	sent      int64
	broken    bool // what was found could not be handed over
	completed []string
	gaps      []*discoveryv1.Gap

	mu    sync.Mutex
	words string
	told  chan struct{}
	done  chan struct{}
}

func newSink(ctx context.Context, ingest discoveryv1connect.IngestServiceClient, attempt uint32, deadline time.Time, stop context.CancelCauseFunc) *sink {
	s := &sink{ctx: ctx, ingest: ingest, attempt: attempt, deadline: deadline, stop: stop, told: make(chan struct{}), done: make(chan struct{})}
	go s.tell()
	return s
}

// tell says what is being read, and learns whether to stop.
func (s *sink) tell() {
	defer close(s.told)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.done:
			return
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		words := s.words
		s.mu.Unlock()
		res, err := s.ingest.ReportProgress(s.ctx, connect.NewRequest(&discoveryv1.ReportProgressRequest{Attempt: s.attempt, Progress: words}))
		// That it can't be told is no reason to stop reading: sealing will show.
		if err == nil && res.Msg.GetStop() {
			s.stop(errStopped)
			return
		}
	}
}

// Emit batches records and sends full batches.
func (s *sink) Emit(ctx context.Context, records ...*discoveryv1.Record) error {
	if err := context.Cause(s.ctx); err != nil { //nolint:contextcheck // the slice's context says why it was stopped
		return err
	}
	for _, r := range records {
		s.batch = append(s.batch, r)
		s.bytes += proto.Size(r)
		if len(s.batch) >= batchRecords || s.bytes >= batchBytes {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (s *sink) flush() error {
	if len(s.batch) == 0 {
		return nil
	}
	if s.stream == nil {
		s.stream = s.ingest.IngestRecords(s.ctx)
	}
	n := int64(len(s.batch))
	err := s.stream.Send(&discoveryv1.IngestRecordsRequest{Attempt: s.attempt, Records: s.batch})
	if errors.Is(err, io.EOF) {
		// The other side ended the stream; why stands in its answer.
		_, err = s.stream.CloseAndReceive()
		s.stream = nil
		if err == nil {
			err = errors.New("discovery ended the stream early")
		}
	}
	if err != nil {
		s.broken = true
		return handed(fmt.Errorf("hand over what was found: %w", err))
	}
	if err := failpoint.Here("worker.batch.sent"); err != nil {
		return err
	}
	s.sent += n
	s.batch, s.bytes = s.batch[:0], 0
	return nil
}

// close sends what is left and waits until discovery has staged all of it.
func (s *sink) close() error {
	err := s.flush()
	close(s.done)
	<-s.told
	if s.stream == nil {
		return err
	}
	res, cerr := s.stream.CloseAndReceive()
	switch {
	case err != nil:
		return err
	case cerr != nil:
		return handed(fmt.Errorf("hand over what was found: %w", cerr))
	case res.Msg.GetStaged() != s.sent:
		return fmt.Errorf("discovery staged %d of %d records", res.Msg.GetStaged(), s.sent)
	}
	return nil
}

// Complete implements connector.Sink.
func (s *sink) Complete(scope string) { s.completed = append(s.completed, scope) }

// Gap implements connector.Sink.
func (s *sink) Gap(scope, reason string) {
	const most = 1000
	s.gaps = append(s.gaps, &discoveryv1.Gap{Scope: said(scope, 512), Reason: said(reason, most)})
}

// Progress implements connector.Sink.
func (s *sink) Progress(words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = said(words, 500)
}

// Due implements connector.Sink.
func (s *sink) Due() bool { return time.Now().After(s.deadline) || s.ctx.Err() != nil }
