package set

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/release"
	"a3os.app/libs/rpc"
)

// status is what a member says of itself to the one that reports for the set.
type status struct {
	told    string
	expires func() time.Time
	started time.Time
	ready   func(context.Context) error
	more    func(context.Context, *setv1.Figures)
	tally   atomic.Pointer[rpc.Tally]
}

// GetStatus serves StatusService.
func (s *status) GetStatus(ctx context.Context, _ *connect.Request[setv1.GetStatusRequest]) (*connect.Response[setv1.GetStatusResponse], error) {
	res, err := s.say(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func (s *status) say(ctx context.Context) (*setv1.GetStatusResponse, error) {
	own, err := release.Own(s.told)
	if err != nil {
		return nil, err
	}
	res := &setv1.GetStatusResponse{Serving: true, Release: own.String(), StartedAt: timestamppb.New(s.started), Figures: &setv1.Figures{CertificateExpiresAt: timestamppb.New(s.expires())}}
	if s.ready != nil {
		if err := s.ready(ctx); err != nil {
			slog.WarnContext(ctx, "not ready", "error", err)
			res.Serving = false
		}
	}
	if t := s.tally.Load(); t != nil {
		res.Figures.Requests, res.Figures.Errors = t.Requests.Load(), t.Errors.Load()
		res.Figures.LatencyCounts = t.Latency.Counts()
	}
	if resident, err := residentBytes(); err == nil {
		res.Figures.ResidentBytes = resident
	}
	if s.more != nil {
		s.more(ctx, res.Figures)
	}
	return res, nil
}

// Status is what the member says of itself, for the one that reports.
func (m *Member) Status(ctx context.Context) (*setv1.GetStatusResponse, error) {
	return m.status.say(ctx)
}

// residentBytes is the process's resident memory, as Linux tells it.
func residentBytes() (int64, error) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/self/statm reads %q", raw)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
