package server

import (
	"fmt"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/services/registry/internal/publish"
)

type snapshots struct {
	registryv1.UnimplementedSnapshotServiceServer
	Config
}

// WatchSnapshot sends the present snapshot, unless the gateway holds it, then what changes. A gateway that falls behind too far for
// changes, or takes none, gets the newest whole and not each one between: a snapshot is the whole truth.
func (s *snapshots) WatchSnapshot(req *registryv1.WatchSnapshotRequest, stream grpc.ServerStreamingServer[registryv1.WatchSnapshotResponse]) error {
	sent := req.GetHaveVersion()
	for {
		now := s.Publisher.Present()
		if err := send(stream, now, sent, req.GetTakesChanges()); err != nil {
			return err
		}
		if now.Version() > 0 {
			sent = now.Version()
		}
		select {
		case <-now.Replaced():
		case <-s.Stopping:
			return fault.New(fault.Unavailable, "the registry is stopping; connect again")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func send(stream grpc.ServerStreamingServer[registryv1.WatchSnapshotResponse], now *publish.Published, sent int64, takesChanges bool) error {
	if now.Version() == 0 || now.Version() == sent {
		return nil
	}
	if changes, ok := now.Since(sent); ok && takesChanges {
		for _, c := range changes {
			if err := stream.Send(&registryv1.WatchSnapshotResponse{Change: c}); err != nil {
				return fmt.Errorf("send a change of the snapshot: %w", err)
			}
		}
		return nil
	}
	// One that is older than what the gateway holds is sent as well, for the gateway refuses it and raises the alarm.
	whole, err := now.Whole()
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the snapshot can't be signed")
	}
	if err := stream.Send(&registryv1.WatchSnapshotResponse{Snapshot: whole}); err != nil {
		return fmt.Errorf("send a snapshot: %w", err)
	}
	return nil
}
