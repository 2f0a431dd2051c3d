package server

import (
	"fmt"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

type snapshots struct {
	registryv1.UnimplementedSnapshotServiceServer
	Config
}

// WatchSnapshot sends the present snapshot, unless the gateway holds it, then each new one. A gateway that falls behind gets the
// newest and not each one between: a snapshot is the whole truth.
func (s *snapshots) WatchSnapshot(req *registryv1.WatchSnapshotRequest, stream grpc.ServerStreamingServer[registryv1.WatchSnapshotResponse]) error {
	sent := req.GetHaveVersion()
	for {
		signed, version, replaced := s.Publisher.Present()
		// One that is older than what the gateway holds is sent as well, for the gateway refuses it and raises the alarm.
		if signed != nil && version != sent {
			if err := stream.Send(&registryv1.WatchSnapshotResponse{Snapshot: signed}); err != nil {
				return fmt.Errorf("send a snapshot: %w", err)
			}
			sent = version
		}
		select {
		case <-replaced:
		case <-s.Stopping:
			return fault.New(fault.Unavailable, "the registry is stopping; connect again")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
