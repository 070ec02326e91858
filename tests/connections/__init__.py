"""HTTP exchanges over real sockets: deadlines, broken peers, reuse, fairness, cancellation, forks."""
