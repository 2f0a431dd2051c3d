package server

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"

	"a3os.app/services/audit/internal/licensing"
)

// Licence implements LicenceService.
type Licence struct {
	keeper *licensing.Keeper
	usage  *licensing.Usage
}

var _ auditv1connect.LicenceServiceHandler = (*Licence)(nil)

// NewLicence makes it.
func NewLicence(keeper *licensing.Keeper, usage *licensing.Usage) *Licence {
	return &Licence{keeper: keeper, usage: usage}
}

// GetLicence answers the licence that the set holds.
func (s *Licence) GetLicence(ctx context.Context, _ *connect.Request[auditv1.GetLicenceRequest]) (*connect.Response[auditv1.GetLicenceResponse], error) {
	standing, err := s.keeper.Look(ctx)
	if err != nil {
		return nil, err
	}
	res := &auditv1.GetLicenceResponse{Licence: standing.Worth.Licence, State: standing.Worth.State, Message: standing.Message()}
	if !standing.Worth.Since.IsZero() {
		res.Since = timestamppb.New(standing.Worth.Since)
	}
	if !standing.Behind.IsZero() {
		res.ClockBehind = timestamppb.New(standing.Behind)
	}
	if res.Licence != nil {
		if res.File, res.InstalledAt, err = s.keeper.File(ctx, res.GetLicence().GetSerial()); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(res), nil
}

// GetUsage answers what the next report of use will say.
func (s *Licence) GetUsage(ctx context.Context, _ *connect.Request[auditv1.GetUsageRequest]) (*connect.Response[auditv1.GetUsageResponse], error) {
	next, err := s.usage.Next(ctx)
	if err != nil {
		return nil, err
	}
	res := &auditv1.GetUsageResponse{Off: next.Off, Last: next.Last}
	if res.Text, err = next.Report.Text(); err != nil {
		return nil, err
	}
	if !next.At.IsZero() {
		res.NextAt = timestamppb.New(next.At)
	}
	if !next.LastAt.IsZero() {
		res.LastAt = timestamppb.New(next.LastAt)
	}
	return connect.NewResponse(res), nil
}
