"""What every HTTP edge needs: problem documents, request ids, sign-in, the lean door."""
