package operate

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// wire takes a call as far as a connection does before it sends anything.
type wire struct {
	grpc.ClientConnInterface
	detail string
}

func (w *wire) Invoke(_ context.Context, _ string, args, _ any, _ ...grpc.CallOption) error {
	req := args.(*registryv1.RecordStepRequest) //nolint:forcetypeassert // it is called for nothing else
	w.detail = req.GetDetail()
	_, err := proto.Marshal(req)
	return err
}

// Why a step failed is on record also where it is too long and cut in the middle of a character, or was never text: else the failure to say
// so would be all that is told.
func TestStepThatFailedIsOnRecordWhateverItSays(t *testing.T) {
	for _, detail := range []string{"a" + strings.Repeat("ä", 2000), "exit status 1: \xff\xfe", strings.Repeat("a", 1999) + "€"} {
		w := &wire{}
		if _, err := (recording{step: "start", state: registryv1.StepState_STEP_STATE_FAILED, detail: detail}).at(t.Context(), w, "opr_1", "token"); err != nil {
			t.Errorf("%.20q… is not recorded: %v", detail, err)
		}
		if len(w.detail) > 2000 || w.detail[:1] != detail[:1] {
			t.Errorf("%d bytes of it are recorded", len(w.detail))
		}
	}
}
