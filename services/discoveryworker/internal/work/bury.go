package work

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/queue"
)

// Bury hands a message that will not be delivered again to discovery, which keeps it on the record. Where the message can be believed,
// its run ends: nobody will ever work on the slice, and no other run of the integration could begin.
func (w *Worker) Bury(ctx context.Context, letter queue.DeadLetter) error {
	attempt := uint32(letter.Attempt) //nolint:gosec // bounded by the queue's tries
	_, err := w.cfg.Letters.ReportDeadLetter(ctx, connect.NewRequest(&discoveryv1.ReportDeadLetterRequest{
		JobId: letter.JobID, Attempt: attempt, Reason: said(letter.Reason, 1000), Cause: causeOf(letter.Err),
		Envelope: cut(letter.Envelope), Payload: cut(letter.Payload)}))
	if err != nil || letter.Verified == nil || letter.Verified.Kind() != Kind {
		return err
	}
	if ctx, err = queue.InScope(ctx, *letter.Verified, service); err != nil {
		return err
	}
	return unlessOver(w.fail(ctx, attempt, fmt.Errorf("given up after %d attempts: %s", letter.Attempt, letter.Reason)))
}

func causeOf(err error) discoveryv1.DeadLetterCause {
	switch {
	case errors.Is(err, queue.ErrGivenUp): // before the others, which may be why the work failed
		return discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_GIVEN_UP
	case errors.Is(err, queue.ErrForged):
		return discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_FORGED
	case errors.Is(err, queue.ErrExpired):
		return discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_EXPIRED
	case errors.Is(err, queue.ErrForeign):
		return discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_FOREIGN
	}
	return discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_MALFORMED
}

// cut bounds what is kept of a message. What is longer than any message may be is never believed again, whole or cut.
func cut(b []byte) []byte {
	const most = 8192
	return b[:min(len(b), most)]
}
